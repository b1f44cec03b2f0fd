# No published figure with this backbone; recipe of RTMDet.
_base_ = './_base_/rtmdet_mobilevit.py'
checkpoint = (
    'https://docs-assets.developer.apple.com/ml-research/models/'
    'cvnets/classification/mobilevit_xxs.pt')
model = dict(
    backbone=dict(arch='xxs', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[48, 64, 80], out_channels=80),
    bbox_head=dict(in_channels=80, feat_channels=80))
