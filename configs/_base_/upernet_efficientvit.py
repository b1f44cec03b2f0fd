# EfficientViTFPN makes strides 4 to 64 out of the backbone's 16, 32 and 64, and UperNet takes all of
# them; the auxiliary head is at stride 16 as elsewhere. Recipe as in semantic_fpn_efficientvit.py.
_base_ = ['./upernet.py', './ade20k.py', './recipe_repvit_segmentation.py']
model = dict(
    backbone=dict(type='EfficientViT', norm_eval=True),
    neck=dict(type='EfficientViTFPN', out_channels=256, num_extra_trans_convs=2, num_outs=5),
    decode_head=dict(in_channels=[256, 256, 256, 256, 256], in_index=[0, 1, 2, 3, 4]),
    auxiliary_head=dict(in_channels=256))
