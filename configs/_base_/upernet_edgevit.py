# No UperNet with EdgeViT was published. The recipe is that of RepViT's Semantic FPN: AdamW 2e-4,
# weight decay 1e-4 on everything, 40k iterations of batch 32, polynomial decay to 1e-6.
_base_ = ['./upernet.py', './ade20k.py', './schedule_40k.py', './runtime_seg.py']
model = dict(backbone=dict(type='EdgeViT', drop_path_rate=0.1, out_norm=True))
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4))
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=1e-6, begin=0, end=40000, by_epoch=False),
]
