# Published: mIoU 41.4 (EMOv2 Table XI, LSNet; TinyMIM Table 1 has 42.1 without naming the head).
# Recipe of PVT, which the authors are remembered to follow: uncertain. They released no weights,
# so the figure needs an ImageNet training of your own.
_base_ = './_base_/semantic_fpn_edgevit.py'
model = dict(backbone=dict(arch='xs'), neck=dict(in_channels=[48, 96, 240, 384]))
