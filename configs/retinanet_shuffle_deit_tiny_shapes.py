# For the comparison in docs/quickstart.md, from random weights. No publication has it.
_base_ = './_base_/retinanet_shapes.py'
model = dict(
    backbone=dict(type='ShuffleDeiT', arch='tiny'),
    neck=dict(in_channels=[384, 384, 384, 384]))
