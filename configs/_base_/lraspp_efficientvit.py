# The levels have strides 8, 32 and 64: the finest is the map inside the backbone's stem, and the
# backbone's own level of stride 16 is not used.
_base_ = './lraspp.py'
model = dict(
    backbone=dict(type='EfficientViT', stem_level=True, out_indices=(1, 2), norm_eval=True))
