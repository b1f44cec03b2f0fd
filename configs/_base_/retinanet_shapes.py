# A RetinaNet with a narrow head, from random weights, on the data set of tools/make_shapes.py.
# Chosen so that EdgeViT-XXS takes five minutes of two CPU cores; no publication has it.
_base_ = ['./retinanet.py', './shapes_detection.py', './schedule_shapes.py']
model = dict(
    neck=dict(out_channels=64, num_outs=3),
    bbox_head=dict(
        num_classes=4,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(octave_base_scale=2, strides=[8, 16, 32]),
        reg_decoded_bbox=True,
        loss_bbox=dict(_delete_=True, type='GIoULoss', loss_weight=2.0)),
    train_cfg=dict(assigner=dict(pos_iou_thr=0.4, neg_iou_thr=0.3)))
