# No published figure with this backbone; recipe of SegFormer for ADE20K. No weights of EdgeViT
# were released.
_base_ = './_base_/segformer_edgevit.py'
model = dict(
    backbone=dict(arch='xs'),
    decode_head=dict(in_channels=[48, 96, 240, 384], channels=256))
