# No published figure with this head; recipe of M4's RetinaNet.
_base_ = './_base_/light_efficientvit.py'
checkpoint = (
    'https://github.com/xinyuliu-jeffrey/EfficientViT_Model_Zoo/'
    'releases/download/v1.0/efficientvit_m3.pth')
model = dict(
    backbone=dict(arch='m3', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[128, 240, 320]))
