# No published figure; recipe of RepViT's Semantic FPN. No weights were released: it starts from
# random ones.
_base_ = './_base_/upernet_shuffle_t2t_vit.py'
model = dict(
    backbone=dict(arch='7'),
    decode_head=dict(in_channels=[512, 512, 512, 512]),
    auxiliary_head=dict(in_channels=512))
