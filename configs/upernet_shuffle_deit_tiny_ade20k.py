# No published figure; recipe of RepViT's Semantic FPN. No weights were released: it starts from
# random ones.
_base_ = './_base_/upernet_shuffle_deit.py'
model = dict(
    backbone=dict(arch='tiny'),
    decode_head=dict(in_channels=[384, 384, 384, 384]),
    auxiliary_head=dict(in_channels=384))
