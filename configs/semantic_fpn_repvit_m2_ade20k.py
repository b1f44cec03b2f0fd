# Published: mIoU 40.6 (RepViT's first README, v1 names; the same run as M1.1). Recipe: its
# segmentation/configs. The authors' files of this first version are gone; timm keeps the weights.
_base_ = './_base_/semantic_fpn_repvit.py'
checkpoint = 'timm://repvit_m2.dist_in1k'
model = dict(
    backbone=dict(arch='m2', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[64, 128, 256, 512]))
