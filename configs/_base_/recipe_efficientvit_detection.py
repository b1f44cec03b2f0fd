# EfficientViT's downstream/configs: AdamW 1e-4, weight decay 0.05 on everything but the attention
# biases (norms and other biases are decayed), 1x. BatchNorm statistics stay as they come from
# ImageNet (norm_eval, stated beside the backbone).
_base_ = ['./schedule_1x.py', './runtime_det.py']
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(attention_biases=dict(decay_mult=0.0))))
