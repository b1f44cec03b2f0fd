# No published figure with this backbone; recipe of SegFormer for ADE20K. No weights were
# released: it starts from random ones.
_base_ = './_base_/lraspp_shuffle_t2t_vit.py'
model = dict(
    backbone=dict(arch='12'),
    decode_head=dict(in_channels=[512, 512, 512]))
