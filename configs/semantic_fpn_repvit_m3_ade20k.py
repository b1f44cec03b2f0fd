# Published: mIoU 42.8 (RepViT's first README, v1 names). Recipe: its segmentation/configs. The
# authors' files of this first version are gone; timm keeps the weights.
_base_ = './_base_/semantic_fpn_repvit.py'
checkpoint = 'timm://repvit_m3.dist_in1k'
model = dict(
    backbone=dict(arch='m3', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[64, 128, 256, 512]))
