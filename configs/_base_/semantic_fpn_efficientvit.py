# The recipe of LSNet's Semantic FPN (its authors wrote RepViT too): AdamW 2e-4, weight decay 1e-4,
# 40k iterations of batch 32, polynomial decay to 1e-6. The neck makes strides 4 and 8 by transposed
# convolutions; the head leaves out its fifth level, stride 64, and so do other pyramids here.
_base_ = ['./semantic_fpn.py', './ade20k.py', './recipe_repvit_segmentation.py']
model = dict(
    backbone=dict(type='EfficientViT', norm_eval=True),
    neck=dict(type='EfficientViTFPN', num_extra_trans_convs=2, num_outs=5))
