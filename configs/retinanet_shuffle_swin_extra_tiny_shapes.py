# For the comparison in docs/quickstart.md, from random weights. No publication has it.
_base_ = './_base_/retinanet_shapes.py'
model = dict(
    backbone=dict(type='ShuffleSwin', arch='extra_tiny', out_indices=(1, 2, 3)),
    neck=dict(start_level=0, in_channels=[192, 384, 768]))
