# SegFormer's recipe for ADE20K as mmseg 1.2.2 has it (segformer_mit-b0_8xb2-160k): AdamW 6e-5, ten
# times that for the head, weight decay 0.01 but not on norms, 160k iterations of batch 16, 1500 of
# warm-up, then linear to 0. BatchNorm statistics of pretrained backbones stay, as in
# recipe_repvit_segmentation.py.
_base_ = ['./ade20k.py', './runtime_seg.py']
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, custom_keys={'decode_head': dict(lr_mult=10.0)}))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, begin=1500, end=160000, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=16000))
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
