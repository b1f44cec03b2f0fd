# Drop path is that of T2T-ViT's classification training.
_base_ = ['./light.py', './coco_detection_640.py', './recipe_repvit_detection.py']
# The head has no level of stride 4; it is left out here, since a norm or an upsampling of its own
# would be without a gradient.
model = dict(
    backbone=dict(type='ShuffleT2TViT', out_indices=(1, 2, 3), drop_path_rate=0.1),
    neck=dict(start_level=0))
