# No published figure with this backbone; recipe of RTMDet.
_base_ = './_base_/rtmdet_repvit.py'
checkpoint = (
    'https://github.com/THU-MIG/RepViT/releases/download/v1.0/'
    'repvit_m0_6_distill_300e.pth')
model = dict(
    backbone=dict(arch='m0_6', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[80, 160, 320], out_channels=80),
    bbox_head=dict(in_channels=80, feat_channels=80))
