# No published figure with this backbone; recipe of SegFormer for ADE20K.
_base_ = './_base_/lraspp_efficientvit.py'
checkpoint = (
    'https://github.com/xinyuliu-jeffrey/EfficientViT_Model_Zoo/'
    'releases/download/v1.0/efficientvit_m5.pth')
model = dict(
    backbone=dict(arch='m5', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(in_channels=[96, 288, 384]))
