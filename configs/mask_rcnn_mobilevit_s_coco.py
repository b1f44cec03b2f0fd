# No figure published for this schedule; recipe of RepViT's Mask R-CNN. (Apple's box AP 42.0, mask
# AP 37.7 took 100 epochs of RangeAugment at up to 1280 pixels.)
_base_ = './_base_/mask_rcnn_mobilevit.py'
checkpoint = (
    'https://docs-assets.developer.apple.com/ml-research/models/'
    'cvnets/classification/mobilevit_s.pt')
model = dict(
    backbone=dict(arch='s', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[64, 96, 128, 160]))
