# Published by others: box AP 34.9, mask AP 32.8 (LSNet Table 2, trained by its authors). Recipe
# of M4.
_base_ = './_base_/mask_rcnn_efficientvit.py'
checkpoint = (
    'https://github.com/xinyuliu-jeffrey/EfficientViT_Model_Zoo/'
    'releases/download/v1.0/efficientvit_m5.pth')
model = dict(
    backbone=dict(arch='m5', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[192, 288, 384]))
