# No published figure; recipe of RepViT. No weights of EdgeViT were released.
_base_ = './_base_/upernet_edgevit.py'
model = dict(
    backbone=dict(arch='xs'),
    decode_head=dict(in_channels=[48, 96, 240, 384]),
    auxiliary_head=dict(in_channels=240))
