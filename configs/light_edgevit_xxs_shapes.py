# What tools/quickstart.sh --light trains, from random weights. No publication has it.
_base_ = './_base_/light_shapes.py'
model = dict(backbone=dict(type='EdgeViT', arch='xxs'), neck=dict(in_channels=[36, 72, 144, 288]))
