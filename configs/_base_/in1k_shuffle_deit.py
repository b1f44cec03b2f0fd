# Channel-shuffle DeiT (Ackesnal/deit at c6e3e8d, exec_config.sh): DeiT's training, 5e-4 per 512
# images.
_base_ = './recipe_deit.py'
model = dict(
    backbone=dict(type='ShuffleDeiT', class_token=True, drop_path_rate=0.1),
    head=dict(norm=dict(type='LN', eps=1e-6)))
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'stem.pos_embed': dict(decay_mult=0.0),
            'stem.cls_token': dict(decay_mult=0.0),
        }))
