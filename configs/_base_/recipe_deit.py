# The training of DeiT's code (facebookresearch/deit), which the papers took over: 300 epochs of
# batch 2048 (8 GPUs x 256 images) with AdamW, a cosine per epoch to 1e-5 and a warm-up of 5 epochs
# from 1e-6, at which epochs 0 and 1 both run. Biases, norms and other vectors do not decay. That
# code keeps an average of the weights too, which it never evaluates; none is kept here.
_base_ = ['./classifier.py', './imagenet.py', './runtime_cls.py']
model = dict(
    erasing=0.25,
    mixup=dict(mixup_alpha=0.8, cutmix_alpha=1.0, switch_prob=0.5),
    smoothing=0.1)
train_dataloader = dict(
    sampler=dict(_delete_=True, type='RepeatedAugmentationSampler'),
    dataset=dict(transform=dict(auto_augment='rand-m9-mstd0.5-inc1')))

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0))
param_scheduler = dict(
    type='WarmupCosineLR', convert_to_iter_based=True, epochs=300, eta_min=1e-5, warmup_lr=1e-6,
    warmup_epochs=5, delay=1)
auto_scale_lr = dict(enable=False, base_batch_size=2048)
