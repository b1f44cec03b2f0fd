# No published figure; recipe of RepViT's Semantic FPN. No weights were released: it starts from
# random ones.
_base_ = './_base_/upernet_shuffle_swin.py'
model = dict(
    backbone=dict(arch='extra_tiny'),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384))
