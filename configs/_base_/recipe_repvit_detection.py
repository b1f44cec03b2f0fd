# RepViT's detection/configs: AdamW 2e-4, weight decay 0.05 on everything, 1x, warm-up from 1e-6.
# BatchNorm statistics stay as they come from ImageNet (norm_eval, stated beside each backbone),
# their affine parameters train, and nothing is frozen: frozen_stages=1 in the official files is
# inherited from ResNet's and has no effect there.
_base_ = ['./schedule_1x.py', './runtime_det.py']
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
