# No published figure with this backbone; recipe of SegFormer for ADE20K. The authors' files of
# this first version are gone; timm keeps the weights.
_base_ = './_base_/lraspp_repvit.py'
checkpoint = 'timm://repvit_m1.dist_in1k'
model = dict(
    backbone=dict(arch='m1', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(in_channels=[48, 192, 384]))
