# No published figure with this backbone; recipe of RTMDet-Ins. No weights were released: it
# starts from random ones.
_base_ = './_base_/rtmdet_ins_shuffle_swin.py'
mapper = dict(
    type='ChannelMapper',
    in_channels=[192, 384, 768],
    out_channels=128,
    kernel_size=1,
    norm_cfg={{_base_.norm_cfg}},
    act_cfg={{_base_.act_cfg}})
model = dict(
    backbone=dict(arch='extra_tiny'),
    neck=[mapper, {{_base_.mapped_neck}}])
