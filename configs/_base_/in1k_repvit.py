# RepViT (THU-MIG/RepViT, main.py) without its teacher: DeiT's training, 1e-3 per 512 images, decay
# 0.025, adaptive clipping, in mixed precision (--amp).
_base_ = './recipe_deit.py'
model = dict(
    backbone=dict(type='RepViT', out_indices=(3, )),
    head=dict(norm=dict(type='BN1d')))
optim_wrapper = dict(
    type='AdaptiveClipOptimWrapper', clip_factor=0.02,
    optimizer=dict(lr=4e-3, weight_decay=0.025))
