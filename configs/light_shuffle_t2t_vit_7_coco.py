# No published figure with this head; recipe of RepViT's Mask R-CNN. No weights were released: it
# starts from random ones.
_base_ = './_base_/light_shuffle_t2t_vit.py'
model = dict(backbone=dict(arch='7'), neck=dict(in_channels=[512, 512, 512]))
