# RTMDet-Ins: RTMDet with a mask for each box (mmdet 3.3.0), of the widths of rtmdet.py, without a
# backbone. It is for backbones of 3.5 M parameters or more: EdgeViT-XXS, with which it was trained
# here, has 3.8 M, and RepViT-M0.9 4.7 M.
_base_ = './rtmdet.py'
model = dict(
    data_preprocessor=dict(pad_mask=True),
    bbox_head=dict(
        _delete_=True,
        type='RTMDetInsSepBNHead',
        num_classes=80,
        in_channels=96,
        feat_channels=96,
        stacked_convs=2,
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        loss_mask=dict(type='DiceLoss', loss_weight=2.0, eps=5e-6, reduction='mean'),
        share_conv=True,
        pred_kernel_size=1,
        norm_cfg={{_base_.norm_cfg}},
        act_cfg={{_base_.act_cfg}}),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=100,
        mask_thr_binary=0.5))
