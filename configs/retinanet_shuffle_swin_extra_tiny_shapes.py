# For the comparison in docs/quickstart.md, from random weights. No publication has it.
_base_ = './_base_/retinanet_shapes.py'
model = dict(
    backbone=dict(type='ShuffleSwin', arch='extra_tiny'),
    neck=dict(in_channels=[96, 192, 384, 768]))
