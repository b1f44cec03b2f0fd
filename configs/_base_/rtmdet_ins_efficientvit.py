# The backbone's own levels have strides 16, 32 and 64; the map of stride 8 inside its stem is the
# finest one. The neck and head have four levels, as in RTMDet-x-p6.
_base_ = ['./rtmdet_ins.py', './recipe_rtmdet_ins.py']
model = dict(
    data_preprocessor=dict(pad_size_divisor=64),
    backbone=dict(type='EfficientViT', stem_level=True),
    bbox_head=dict(anchor_generator=dict(strides=[8, 16, 32, 64])))
