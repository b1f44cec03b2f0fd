# SSDLite of MobileViT (apple/ml-cvnets, tag cvnets-v0.1): 320 x 320, AdamW 9e-4, weight decay 0.01
# on everything, 200 epochs of batch 128, warm-up from 9e-5 over 500 iterations, cosine to 1e-6, EMA
# 0.0005, synchronised BatchNorm, mixed precision (--amp). Anchors and matching are theirs. What
# differs: mmdet's head has a depthwise convolution of its own for classes and boxes each, with an
# activation behind it; the augmentation is that of mmdet's SSDLite.
_base_ = ['./coco_detection.py', './runtime_det.py', './input_mobilevit.py']
custom_imports = dict(
    imports=['lightvit_mm', 'lightvit_mm.heads.ssdlite_head'], allow_failed_imports=False)
norm_cfg = dict(type='SyncBN')
act_cfg = dict(type='Swish')
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor', pad_size_divisor=1,
        mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0], bgr_to_rgb=False),
    backbone=dict(type='MobileViT', out_indices=(2, 3), norm_cfg=norm_cfg),
    neck=dict(
        type='SSDLiteNeck',
        out_channels=[512, 256, 256, 128, 128, 64],
        norm_cfg=norm_cfg,
        act_cfg=act_cfg),
    bbox_head=dict(
        type='SSDLiteHead',
        in_channels=[512, 256, 256, 128, 128, 64],
        num_classes=80,
        norm_cfg=norm_cfg,
        act_cfg=act_cfg,
        init_cfg=dict(type='Xavier', layer='Conv2d', distribution='uniform'),
        # Seven scales from 0.1 to 1.05 of the side, each level with its own and the geometric mean
        # with the next.
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            strides=[16, 32, 64, 107, 160, 320],
            ratios=[[2, 3], [2, 3], [2, 3], [2, 3], [2, 3], [2]],
            min_sizes=[32, 82.67, 133.33, 184, 234.67, 285.33],
            max_sizes=[82.67, 133.33, 184, 234.67, 285.33, 336]),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[0.1, 0.1, 0.2, 0.2])),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.0,
            ignore_iof_thr=-1,
            gt_max_assign_all=False),
        sampler=dict(type='PseudoSampler'),
        smoothl1_beta=1.0,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
        debug=False),
    test_cfg=dict(
        nms_pre=400,
        nms=dict(type='nms', iou_threshold=0.5),
        min_bbox_size=0,
        score_thr=0.01,
        max_per_img=200))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Expand', mean=[0.0, 0.0, 0.0], to_rgb=False, ratio_range=(1, 4)),
    dict(type='MinIoURandomCrop', min_ious=(0.1, 0.3, 0.5, 0.7, 0.9), min_crop_size=0.3),
    dict(type='Resize', scale=(320, 320), keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='PhotoMetricDistortion',
        brightness_delta=32,
        contrast_range=(0.5, 1.5),
        saturation_range=(0.5, 1.5),
        hue_delta=18),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 320), keep_ratio=False),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=16, num_workers=4, batch_sampler=None, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=200, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=9e-4, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=500),
    # 917 iterations an epoch.
    dict(
        type='CosineAnnealingLR', eta_min=1e-6, by_epoch=False, begin=500, end=183400,
        T_max=182900),
]
custom_hooks = [
    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.0005),
]
default_hooks = dict(checkpoint=dict(interval=10))
auto_scale_lr = dict(enable=False, base_batch_size=128)
