# No published figure with this backbone; recipe of SegFormer for ADE20K. No weights of EdgeViT
# were released.
_base_ = './_base_/segformer_edgevit.py'
model = dict(backbone=dict(arch='xxs'), decode_head=dict(in_channels=[36, 72, 144, 288]))
