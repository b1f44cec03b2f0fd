# No published figure with this head; recipe of RepViT's Mask R-CNN. No weights were released: it
# starts from random ones.
_base_ = './_base_/light_shuffle_swin.py'
model = dict(backbone=dict(arch='extra_tiny'), neck=dict(in_channels=[192, 384, 768]))
