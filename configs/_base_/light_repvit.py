# The levels are those of the official COCO configs: each stage before the block that opens the
# next downsampling.
_base_ = ['./light.py', './coco_detection_640.py', './recipe_repvit_detection.py']
model = dict(backbone=dict(type='RepViT', tap='stage', norm_eval=True))
