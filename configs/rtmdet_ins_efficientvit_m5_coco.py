# No published figure with this backbone; recipe of RTMDet-Ins.
_base_ = './_base_/rtmdet_ins_efficientvit.py'
checkpoint = (
    'https://github.com/xinyuliu-jeffrey/EfficientViT_Model_Zoo/'
    'releases/download/v1.0/efficientvit_m5.pth')
model = dict(
    backbone=dict(arch='m5', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 288, 384], out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128))
