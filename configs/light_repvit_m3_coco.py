# No published figure with this head; recipe of RepViT's Mask R-CNN. The authors' files of this
# first version are gone; timm keeps the weights.
_base_ = './_base_/light_repvit.py'
checkpoint = 'timm://repvit_m3.dist_in1k'
model = dict(
    backbone=dict(arch='m3', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[64, 128, 256, 512]))
