# For the comparison in docs/quickstart.md, from random weights. No publication has it.
_base_ = './_base_/retinanet_shapes.py'
model = dict(
    backbone=dict(type='ShuffleT2TViT', arch='7', out_indices=(1, 2, 3)),
    neck=dict(start_level=0, in_channels=[512, 512, 512]))
