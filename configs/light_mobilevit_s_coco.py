# No published figure with this head; recipe of RepViT's Mask R-CNN.
_base_ = './_base_/light_mobilevit.py'
checkpoint = (
    'https://docs-assets.developer.apple.com/ml-research/models/'
    'cvnets/classification/mobilevit_s.pt')
model = dict(
    backbone=dict(arch='s', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[64, 96, 128, 160]))
