# No published figure with this head; recipe of RepViT's Mask R-CNN. No weights were released: it
# starts from random ones.
_base_ = './_base_/light_shuffle_deit.py'
model = dict(backbone=dict(arch='tiny'), neck=dict(in_channels=[384, 384, 384]))
