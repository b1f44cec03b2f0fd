# Channel-shuffle Swin (Ackesnal/Swin-Transformer at 552244b): DeiT's augmentation without repeats;
# a warm-up of 20 epochs from 5e-6 and a cosine to 5e-8, both per step and for a batch of 2048, of
# which the schedule is a step behind; gradients clipped to a norm of 5; no decay on bias tables.
_base_ = './recipe_deit.py'
model = dict(
    backbone=dict(type='ShuffleSwin', out_indices=(3, ), out_norm=False),
    head=dict(norm=dict(type='LN', eps=1e-5)))
train_dataloader = dict(sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True))
optim_wrapper = dict(
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(
        custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.0))))
param_scheduler = dict(every='step', eta_min=2e-7, warmup_lr=2e-5, warmup_epochs=20)
