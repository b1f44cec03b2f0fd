# No published figure with this backbone; recipe of RTMDet-Ins.
_base_ = './_base_/rtmdet_ins_repvit.py'
checkpoint = (
    'https://github.com/THU-MIG/RepViT/releases/download/v1.0/'
    'repvit_m1_5_distill_300e.pth')
model = dict(
    backbone=dict(arch='m1_5', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[128, 256, 512], out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128))
