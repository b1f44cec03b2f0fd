# No published figure with this backbone; recipe of RTMDet.
_base_ = './_base_/rtmdet_mobilevit.py'
checkpoint = (
    'https://docs-assets.developer.apple.com/ml-research/models/'
    'cvnets/classification/mobilevit_xs.pt')
model = dict(
    backbone=dict(arch='xs', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[64, 80, 96], out_channels=80),
    bbox_head=dict(in_channels=80, feat_channels=80))
