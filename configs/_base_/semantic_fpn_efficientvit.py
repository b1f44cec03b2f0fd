# The recipe of LSNet's Semantic FPN (its authors wrote RepViT too): AdamW 2e-4, weight decay 1e-4,
# 40k iterations of batch 32, polynomial decay to 1e-6. The neck makes strides 4 and 8 by transposed
# convolutions, and the head takes all five levels, so that no parameter is idle.
_base_ = ['./semantic_fpn.py', './ade20k.py', './recipe_repvit_segmentation.py']
model = dict(
    backbone=dict(type='EfficientViT', norm_eval=True),
    neck=dict(type='EfficientViTFPN', num_extra_trans_convs=2, num_outs=5),
    decode_head=dict(
        in_channels=[256, 256, 256, 256, 256],
        in_index=[0, 1, 2, 3, 4],
        feature_strides=[4, 8, 16, 32, 64]))
