# Drop path is that of the classification configs of an author's fork.
_base_ = ['./mask_rcnn.py', './coco_instance.py', './recipe_repvit_detection.py']
model = dict(backbone=dict(type='ShuffleSwin', drop_path_rate=0.1))
