# No published figure with this backbone; recipe of SegFormer for ADE20K.
_base_ = './_base_/lraspp_mobilevit.py'
checkpoint = (
    'https://docs-assets.developer.apple.com/ml-research/models/'
    'cvnets/classification/mobilevit_xxs.pt')
model = dict(
    backbone=dict(arch='xxs', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(in_channels=[24, 64, 80]))
