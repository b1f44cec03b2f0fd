# No published figure with this backbone; recipe of RTMDet-Ins.
_base_ = './_base_/rtmdet_ins_repvit.py'
checkpoint = (
    'https://github.com/THU-MIG/RepViT/releases/download/v1.0/'
    'repvit_m2_3_distill_450e.pth')
model = dict(
    backbone=dict(arch='m2_3', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[160, 320, 640], out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128))
