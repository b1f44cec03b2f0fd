# Published: box AP 24.8 (MobileViT's paper and cvnets-v0.1 README). Recipe: cvnets-v0.1.
_base_ = './_base_/ssdlite_mobilevit.py'
checkpoint = (
    'https://docs-assets.developer.apple.com/ml-research/models/'
    'cvnets/classification/mobilevit_xs.pt')
model = dict(
    backbone=dict(arch='xs', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[80, 96]))
