# No published figure with this backbone; recipe of RTMDet-Ins.
_base_ = './_base_/rtmdet_ins_mobilevit.py'
checkpoint = (
    'https://docs-assets.developer.apple.com/ml-research/models/'
    'cvnets/classification/mobilevit_s.pt')
model = dict(
    backbone=dict(arch='s', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 128, 160]))
