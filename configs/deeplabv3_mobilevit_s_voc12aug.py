# Published: mIoU 79.1 (MobileViT's paper), with extra training images from COCO. Recipe:
# cvnets-v0.1.
_base_ = './_base_/deeplabv3_mobilevit.py'
checkpoint = (
    'https://docs-assets.developer.apple.com/ml-research/models/'
    'cvnets/classification/mobilevit_s.pt')
model = dict(
    backbone=dict(arch='s', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(in_channels=160))
