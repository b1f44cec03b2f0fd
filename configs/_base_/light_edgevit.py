# EdgeViT's authors released no detection code. The recipe is that of PVT, which their paper is
# remembered to follow: AdamW 1e-4, weight decay 1e-4 on everything, 1x, no frozen statistics. Drop
# path is that of their classification code; the output norm is that code's last BatchNorm.
_base_ = ['./light.py', './coco_detection_640.py', './schedule_1x.py', './runtime_det.py']
model = dict(backbone=dict(type='EdgeViT', drop_path_rate=0.1, out_norm=True))
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4))
