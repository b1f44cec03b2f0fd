# No published figure with this backbone; recipe of RTMDet.
_base_ = './_base_/rtmdet_efficientvit.py'
checkpoint = (
    'https://github.com/xinyuliu-jeffrey/EfficientViT_Model_Zoo/'
    'releases/download/v1.0/efficientvit_m0.pth')
model = dict(
    backbone=dict(arch='m0', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[32, 64, 128, 192], out_channels=80),
    bbox_head=dict(in_channels=80, feat_channels=80))
