# No published figure with this backbone; recipe of RTMDet. The authors released no weights: it
# starts from random ones.
_base_ = './_base_/rtmdet_edgevit.py'
model = dict(backbone=dict(arch='xxs'), neck=dict(in_channels=[72, 144, 288]))
