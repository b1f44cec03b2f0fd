# Drop path is that of DeiT's classification training.
_base_ = './rtmdet_ins_mapped.py'
mapper = dict(
    type='ChannelMapper',
    in_channels=[384, 384, 384],
    out_channels=128,
    kernel_size=1,
    norm_cfg={{_base_.norm_cfg}},
    act_cfg={{_base_.act_cfg}})
model = dict(
    backbone=dict(type='ShuffleDeiT', out_indices=(1, 2, 3), drop_path_rate=0.1),
    neck=[mapper, {{_base_.mapped_neck}}])
