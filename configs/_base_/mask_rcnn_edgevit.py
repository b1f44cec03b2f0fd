# The recipe of PVT (see retinanet_edgevit.py): AdamW 2e-4, weight decay 1e-4 on everything, 1x.
_base_ = ['./mask_rcnn.py', './coco_instance.py', './schedule_1x.py', './runtime_det.py']
model = dict(backbone=dict(type='EdgeViT', drop_path_rate=0.1, out_norm=True))
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4))
