# No published figure with this backbone; recipe of RTMDet-Ins. The authors' files of this first
# version are gone; timm keeps the weights.
_base_ = './_base_/rtmdet_ins_repvit.py'
checkpoint = 'timm://repvit_m2.dist_in1k'
model = dict(
    backbone=dict(arch='m2', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[128, 256, 512], out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128))
