# No published figure with this head; recipe of RepViT's Mask R-CNN.
_base_ = './_base_/light_mobilevit.py'
checkpoint = (
    'https://docs-assets.developer.apple.com/ml-research/models/'
    'cvnets/classification/mobilevit_xxs.pt')
model = dict(
    backbone=dict(arch='xxs', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[24, 48, 64, 80]))
