# No published figure with this backbone; recipe of SegFormer for ADE20K. No weights were
# released: it starts from random ones.
_base_ = './_base_/lraspp_shuffle_swin.py'
model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.05),
    decode_head=dict(in_channels=[192, 768, 1536]))
