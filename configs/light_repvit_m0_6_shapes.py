# For the comparison in docs/deploy.md, from random weights. No publication has it.
_base_ = './_base_/light_shapes.py'
model = dict(backbone=dict(type='RepViT', arch='m0_6'), neck=dict(in_channels=[40, 80, 160, 320]))
