# RTMDet's recipe (mmdet 3.3.0, configs/rtmdet): AdamW 4e-3, weight decay 0.05 on all but norms and
# biases, 300 epochs of batch 256 (8 GPUs x 32 images), constant for half of them and then a cosine,
# weights averaged, the last 20 epochs without mosaic and mixup.
_base_ = ['./coco_rtmdet.py', './runtime_det.py']
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=300, val_interval=10, dynamic_intervals=[(280, 1)])
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05),
    # The levels of the head share their convolutions.
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0, bypass_duplicate=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=1000),
    dict(
        type='CosineAnnealingLR', eta_min=2e-4, by_epoch=True, begin=150, end=300, T_max=150,
        convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=10))
custom_hooks = [
    dict(
        type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002, update_buffers=True,
        priority=49),
    dict(
        type='PipelineSwitchHook',
        switch_epoch=280,
        switch_pipeline={{_base_.train_pipeline_stage2}}),
]
tta_model = dict(tta_cfg=dict(nms=dict(iou_threshold=0.6)))
auto_scale_lr = dict(enable=False, base_batch_size=256)
