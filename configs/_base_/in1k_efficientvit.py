# EfficientViT (microsoft/Cream, EfficientViT/classification): DeiT's training, 1e-3 per 512 images,
# decay 0.025 and none on the attention biases, adaptive clipping. At 224 pixels the last stage has
# windows of 4.
_base_ = './recipe_deit.py'
model = dict(
    backbone=dict(type='EfficientViT', out_indices=(2, ), window_sizes=(7, 7, 4)),
    head=dict(norm=dict(type='BN1d')))
optim_wrapper = dict(
    type='AdaptiveClipOptimWrapper', clip_factor=0.02,
    optimizer=dict(lr=4e-3, weight_decay=0.025),
    paramwise_cfg=dict(custom_keys=dict(attention_biases=dict(decay_mult=0.0))))
