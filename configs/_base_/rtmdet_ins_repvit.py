# The levels are those of the official COCO configs: each stage before the block that opens the
# next downsampling.
_base_ = ['./rtmdet_ins.py', './recipe_rtmdet_ins.py']
model = dict(backbone=dict(type='RepViT', tap='stage', out_indices=(1, 2, 3)))
