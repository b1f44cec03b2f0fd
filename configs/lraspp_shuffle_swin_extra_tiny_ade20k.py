# No published figure with this backbone; recipe of SegFormer for ADE20K. No weights were
# released: it starts from random ones.
_base_ = './_base_/lraspp_shuffle_swin.py'
model = dict(
    backbone=dict(arch='extra_tiny'),
    decode_head=dict(in_channels=[96, 384, 768]))
