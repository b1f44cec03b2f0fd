# No published figure with this backbone; recipe of RTMDet-Ins.
_base_ = './_base_/rtmdet_ins_repvit.py'
checkpoint = (
    'https://github.com/THU-MIG/RepViT/releases/download/v1.0/'
    'repvit_m0_9_distill_300e.pth')
model = dict(
    backbone=dict(arch='m0_9', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 384]))
