# No published figure; recipe of RepViT. No weights of EdgeViT were released.
_base_ = './_base_/upernet_edgevit.py'
model = dict(
    backbone=dict(arch='xxs'),
    decode_head=dict(in_channels=[36, 72, 144, 288]),
    auxiliary_head=dict(in_channels=144))
