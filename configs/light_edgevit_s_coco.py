# No published figure with this head; recipe of the RetinaNet (retinanet_edgevit.py). The authors
# released no weights: it starts from random ones.
_base_ = './_base_/light_edgevit.py'
model = dict(backbone=dict(arch='s'), neck=dict(in_channels=[48, 96, 240, 384]))
