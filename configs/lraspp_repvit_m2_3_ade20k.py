# No published figure with this backbone; recipe of SegFormer for ADE20K.
_base_ = './_base_/lraspp_repvit.py'
checkpoint = (
    'https://github.com/THU-MIG/RepViT/releases/download/v1.0/'
    'repvit_m2_3_distill_450e.pth')
model = dict(
    backbone=dict(arch='m2_3', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(in_channels=[80, 320, 640]))
