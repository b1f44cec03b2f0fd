# Published: mIoU 77.1 (MobileViT's paper), with extra training images from COCO. Recipe:
# cvnets-v0.1.
_base_ = './_base_/deeplabv3_mobilevit.py'
checkpoint = (
    'https://docs-assets.developer.apple.com/ml-research/models/'
    'cvnets/classification/mobilevit_xs.pt')
model = dict(
    backbone=dict(arch='xs', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(in_channels=96))
