# No published figure with this backbone; recipe of SegFormer for ADE20K.
_base_ = './_base_/lraspp_repvit.py'
checkpoint = (
    'https://github.com/THU-MIG/RepViT/releases/download/v1.0/'
    'repvit_m1_5_distill_300e.pth')
model = dict(
    backbone=dict(arch='m1_5', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(in_channels=[64, 256, 512]))
