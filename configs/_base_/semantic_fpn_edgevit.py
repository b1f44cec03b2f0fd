# The recipe of PVT (see retinanet_edgevit.py): AdamW 2e-4, weight decay 1e-4 on everything, 40k
# iterations of batch 32, polynomial decay to 0, no warm-up.
_base_ = ['./semantic_fpn.py', './ade20k.py', './schedule_40k.py', './runtime_seg.py']
model = dict(backbone=dict(type='EdgeViT', drop_path_rate=0.1, out_norm=True))
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4))
