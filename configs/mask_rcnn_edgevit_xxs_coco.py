# Published: box AP 39.9, mask AP 36.9 (EdgeViT paper, from memory; parameters agree). Recipe of
# PVT, which the authors are remembered to follow: uncertain. They released no weights, so the
# figure needs an ImageNet training of your own.
_base_ = './_base_/mask_rcnn_edgevit.py'
model = dict(backbone=dict(arch='xxs'), neck=dict(in_channels=[36, 72, 144, 288]))
