# For the comparison in docs/quickstart.md, from random weights. No publication has it.
_base_ = './_base_/retinanet_shapes.py'
model = dict(
    backbone=dict(type='ShuffleDeiT', arch='tiny', out_indices=(1, 2, 3)),
    neck=dict(start_level=0, in_channels=[384, 384, 384]))
