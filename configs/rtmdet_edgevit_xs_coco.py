# No published figure with this backbone; recipe of RTMDet. The authors released no weights: it
# starts from random ones.
_base_ = './_base_/rtmdet_edgevit.py'
model = dict(
    backbone=dict(arch='xs'),
    neck=dict(in_channels=[96, 240, 384], out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128))
