# The backbone's levels have strides 16, 32 and 64; the neck makes strides 4 and 8 by transposed
# convolutions.
_base_ = ['./mask_rcnn.py', './coco_instance.py', './recipe_efficientvit_detection.py']
model = dict(
    backbone=dict(type='EfficientViT', norm_eval=True),
    neck=dict(type='EfficientViTFPN', num_extra_trans_convs=2))
