# No published figure; recipe of LSNet's Semantic FPN, as for that head.
_base_ = './_base_/upernet_efficientvit.py'
checkpoint = (
    'https://github.com/xinyuliu-jeffrey/EfficientViT_Model_Zoo/'
    'releases/download/v1.0/efficientvit_m5.pth')
model = dict(
    backbone=dict(arch='m5', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[192, 288, 384]))
