# What tools/quickstart.sh trains: a RetinaNet with a narrow head, from random weights, on the data
# set of tools/make_shapes.py, within five minutes of two CPU cores. Tuned for that; no publication.
_base_ = ['./_base_/retinanet.py', './_base_/shapes_detection.py', './_base_/runtime_det.py']
model = dict(
    backbone=dict(type='EdgeViT', arch='xxs'),
    neck=dict(in_channels=[36, 72, 144, 288], out_channels=64, num_outs=4),
    bbox_head=dict(
        num_classes=4,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(octave_base_scale=3, strides=[8, 16, 32, 64])))

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=12)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0, end=12,
        convert_to_iter_based=True),
]
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=12))
randomness = dict(seed=0)
