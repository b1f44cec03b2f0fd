# Published: box AP 44.8, mask AP 41.0 (EdgeViT paper, from memory; parameters agree). Recipe of
# PVT, which the authors are remembered to follow: uncertain. They released no weights, so the
# figure needs an ImageNet training of your own.
_base_ = './_base_/mask_rcnn_edgevit.py'
model = dict(backbone=dict(arch='s'), neck=dict(in_channels=[48, 96, 240, 384]))
