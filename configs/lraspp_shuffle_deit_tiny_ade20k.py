# No published figure with this backbone; recipe of SegFormer for ADE20K. No weights were
# released: it starts from random ones.
_base_ = './_base_/lraspp_shuffle_deit.py'
model = dict(
    backbone=dict(arch='tiny'),
    decode_head=dict(in_channels=[384, 384, 384]))
