# Published: mIoU 45.9 (RMT Table 5). Recipe of PVT, which the authors are remembered to follow:
# uncertain. They released no weights, so the figure needs an ImageNet training of your own.
_base_ = './_base_/semantic_fpn_edgevit.py'
model = dict(backbone=dict(arch='s'), neck=dict(in_channels=[48, 96, 240, 384]))
