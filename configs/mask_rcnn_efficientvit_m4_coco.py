# Published: mask AP 31.0 (EfficientViT's downstream/README.md), box AP 32.8 (third party: LSNet
# Table 2). Recipe: its downstream/configs.
_base_ = './_base_/mask_rcnn_efficientvit.py'
checkpoint = (
    'https://github.com/xinyuliu-jeffrey/EfficientViT_Model_Zoo/'
    'releases/download/v1.0/efficientvit_m4.pth')
model = dict(
    backbone=dict(arch='m4', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[128, 256, 384]))
