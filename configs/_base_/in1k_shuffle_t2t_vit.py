# Channel-shuffle T2T-ViT (Ackesnal/T2T-ViT at 5576f06, and yitu-opensource/T2T-ViT): batch 512,
# 310 epochs, of which the last 10 at the lowest rate, a warm-up of 10, DeiT's augmentation without
# repeats and with random interpolation. The average of the weights is evaluated.
_base_ = './recipe_deit.py'
model = dict(
    backbone=dict(type='ShuffleT2TViT', class_token=True, drop_path_rate=0.1),
    head=dict(norm=dict(type='LN', eps=1e-5)))
train_dataloader = dict(
    batch_size=64,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(transform=dict(interpolation='random')))
# The shorter side is resized to 248.
val_dataloader = dict(dataset=dict(transform=dict(crop_pct=0.9)))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=310)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=0.03),
    paramwise_cfg=dict(custom_keys={'stem.cls_token': dict(decay_mult=0.0)}))
param_scheduler = dict(warmup_epochs=10, delay=0)
custom_hooks = [dict(type='EMAHook', momentum=4e-5)]
auto_scale_lr = dict(base_batch_size=512)
