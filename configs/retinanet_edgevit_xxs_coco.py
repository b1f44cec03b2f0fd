# Published: box AP 38.7 (EMOv2 Table IX; that table has 13.1 M parameters, the code gives 13.396
# M). Recipe of PVT, which the authors are remembered to follow: uncertain. They released no
# weights, so the figure needs an ImageNet training of your own.
_base_ = './_base_/retinanet_edgevit.py'
model = dict(backbone=dict(arch='xxs'), neck=dict(in_channels=[36, 72, 144, 288]))
