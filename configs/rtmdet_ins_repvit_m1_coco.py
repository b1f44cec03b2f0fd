# No published figure with this backbone; recipe of RTMDet-Ins. The authors' files of this first
# version are gone; timm keeps the weights.
_base_ = './_base_/rtmdet_ins_repvit.py'
checkpoint = 'timm://repvit_m1.dist_in1k'
model = dict(
    backbone=dict(arch='m1', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 384]))
