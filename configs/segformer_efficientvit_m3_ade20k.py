# No published figure with this backbone; recipe of SegFormer for ADE20K.
_base_ = './_base_/segformer_efficientvit.py'
checkpoint = (
    'https://github.com/xinyuliu-jeffrey/EfficientViT_Model_Zoo/'
    'releases/download/v1.0/efficientvit_m3.pth')
model = dict(
    backbone=dict(arch='m3', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[128, 240, 320], out_channels=256),
    decode_head=dict(in_channels=[256, 256, 256, 256], channels=256))
