# The backbone's levels have strides 16, 32 and 64; the neck makes stride 8 by a transposed
# convolution and stride 128 from the backbone's last map.
_base_ = ['./light.py', './coco_detection_640.py', './recipe_efficientvit_detection.py']
model = dict(
    backbone=dict(type='EfficientViT', norm_eval=True),
    neck=dict(type='EfficientViTFPN', start_level=0, num_extra_trans_convs=1))
