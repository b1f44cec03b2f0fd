# RepViT's segmentation/configs: AdamW 2e-4, weight decay 1e-4 on everything, 40k iterations of
# batch 32, polynomial decay to 1e-6, no warm-up; BatchNorm as in recipe_repvit_detection.py.
_base_ = ['./schedule_40k.py', './runtime_seg.py']
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4))
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=1e-6, begin=0, end=40000, by_epoch=False),
]
