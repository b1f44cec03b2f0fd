# LRASPP's head (Howard et al., ICCV 2019) for 150 classes, without a backbone, with the recipe of
# SegFormer: 128 channels, as in the paper, on the levels of stride 4, 16 and 32. tools/train.py
# turns SyncBN into BN without CUDA.
_base_ = './recipe_segformer.py'
custom_imports = dict(
    imports=['lightvit_mm', 'lightvit_mm.heads.lraspp_head'], allow_failed_imports=False)
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512)),
    backbone=dict(out_indices=(0, 2, 3)),
    decode_head=dict(
        type='GlobalLRASPPHead',
        input_transform='multiple_select',
        in_index=[0, 1, 2],
        channels=128,
        branch_channels=(32, 64),
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        act_cfg=dict(type='ReLU'),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
