# No published figure; recipe of RepViT's Semantic FPN. No weights were released: it starts from
# random ones.
_base_ = './_base_/semantic_fpn_shuffle_swin.py'
model = dict(backbone=dict(arch='extra_tiny'), neck=dict(in_channels=[96, 192, 384, 768]))
