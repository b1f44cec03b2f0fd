# What tools/quickstart.sh trains, from random weights. No publication has it.
_base_ = './_base_/retinanet_shapes.py'
model = dict(backbone=dict(type='EdgeViT', arch='xxs'), neck=dict(in_channels=[36, 72, 144, 288]))
