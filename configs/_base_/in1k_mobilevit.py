# MobileViT (apple/ml-cvnets, tag cvnets-v0.1): 300 epochs of 8 x 128 images, AdamW 2e-3, decay 0.01
# on everything, a warm-up of 3000 steps from 2e-4 and a cosine per epoch back to it, random crops
# and flips only, images of five sizes, mixed precision (--amp). Images are BGR scaled to [0, 1].
# The average of the weights is evaluated. The learning rate belongs to this batch, which differs
# by size: --auto-scale-lr has nothing to scale with.
_base_ = ['./classifier.py', './imagenet.py', './runtime_cls.py']
model = dict(
    data_preprocessor=dict(
        mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0], rgb_to_bgr=True),
    backbone=dict(type='MobileViT', out_indices=(3, ), expand_last=True, drop_rate=0.1),
    head=dict(dropout=0.1),
    smoothing=0.1)
train_dataloader = dict(
    # For each of the sizes.
    batch_size=(328, 224, 128, 128, 128),
    batch_sampler=dict(type='MultiScaleBatchSampler'),
    drop_last=False,  # the batch sampler does it
    dataset=dict(
        sizes=(160, 192, 256, 288, 320),
        transform=dict(interpolation='bilinear', color_jitter=None)))
# The shorter side is resized to 288.
val_dataloader = dict(
    dataset=dict(
        transform=dict(input_size=256, crop_pct=256 / 288, interpolation='bilinear')))
test_dataloader = val_dataloader

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01))
param_scheduler = dict(
    type='WarmupCosineLR', convert_to_iter_based=True, epochs=300, eta_min=2e-4, warmup_lr=2e-4,
    warmup_steps=3000)
custom_hooks = [dict(type='EMAHook', momentum=5e-4, update_buffers=True)]
