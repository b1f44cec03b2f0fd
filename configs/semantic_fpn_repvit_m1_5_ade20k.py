# Published: mIoU 43.6 (RepViT's segmentation/README.md). Recipe: its segmentation/configs.
_base_ = './_base_/semantic_fpn_repvit.py'
checkpoint = (
    'https://github.com/THU-MIG/RepViT/releases/download/v1.0/'
    'repvit_m1_5_distill_300e.pth')
model = dict(
    backbone=dict(arch='m1_5', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[64, 128, 256, 512]))
