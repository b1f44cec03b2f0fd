# No published figure; recipe of RepViT's Semantic FPN. No weights were released: it starts from
# random ones.
_base_ = './_base_/upernet_shuffle_swin.py'
model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.05),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768))
