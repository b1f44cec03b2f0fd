# For the channel-shuffle families, whose levels are twice as wide as other networks' of their size
# (and in two of them equally wide at every stride): 1x1 convolutions bring each level to 128
# channels. The backbone's file completes the neck: a ChannelMapper and mapped_neck.
_base_ = ['./rtmdet_ins.py', './recipe_rtmdet_ins.py']
mapped_neck = dict(
    type='CSPNeXtPAFPN',
    in_channels=[128, 128, 128],
    out_channels=128,
    num_csp_blocks=1,
    expand_ratio=0.5,
    norm_cfg={{_base_.norm_cfg}},
    act_cfg={{_base_.act_cfg}})
model = dict(bbox_head=dict(in_channels=128, feat_channels=128))
