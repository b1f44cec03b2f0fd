# Drop path is that of DeiT's classification training.
_base_ = ['./retinanet.py', './coco_detection.py', './recipe_repvit_detection.py']
model = dict(backbone=dict(type='ShuffleDeiT', drop_path_rate=0.1))
