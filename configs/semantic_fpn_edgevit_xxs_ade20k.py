# Published: mIoU 39.7 (EMOv2 Table XI, LSNet). Recipe of PVT, which the authors are remembered to
# follow: uncertain. They released no weights, so the figure needs an ImageNet training of your
# own.
_base_ = './_base_/semantic_fpn_edgevit.py'
model = dict(backbone=dict(arch='xxs'), neck=dict(in_channels=[36, 72, 144, 288]))
