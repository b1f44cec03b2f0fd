# DeepLabv3 of MobileViT (apple/ml-cvnets, tag cvnets-v0.1): stride 16, ASPP of 256 channels with
# rates 6, 12, 18, AdamW 9e-4 (head x 10), weight decay 0.01 on everything, 50 epochs of batch 128,
# crops of 512 from images resized by 0.5 to 2. What is ours: the schedule, a cosine to 1e-6 after 500
# iterations of warm-up as in their SSDLite; testing at 512 x 512; colour distortion. Theirs had extra
# images from COCO in training, which are not in this data set.
_base_ = ['./voc12aug.py', './runtime_seg.py', './input_mobilevit.py']
custom_imports = dict(
    imports=['lightvit_mm', 'lightvit_mm.heads.pointwise_aspp'], allow_failed_imports=False)
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', pad_val=0, seg_pad_val=255, size=(512, 512),
        mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0], bgr_to_rgb=False),
    backbone=dict(
        type='MobileViT', output_stride=16, out_indices=(3,), norm_cfg=dict(type='SyncBN')),
    decode_head=dict(
        type='PointwiseASPPHead',
        in_index=0,
        channels=256,
        dilations=(1, 6, 12, 18),
        dropout_ratio=0.1,
        num_classes=21,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))

# 10,582 images in batches of 128: 83 iterations an epoch, 50 epochs.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4150, val_interval=830)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=9e-4, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(decode_head=dict(lr_mult=10.0))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=500),
    dict(
        type='CosineAnnealingLR', eta_min=1e-6, by_epoch=False, begin=500, end=4150, T_max=3650),
]
default_hooks = dict(checkpoint=dict(interval=830))
auto_scale_lr = dict(enable=False, base_batch_size=128)
