# Published: top-1 74.1, the best epoch (THU-MIG/RepViT README). Recipe: THU-MIG/RepViT.
_base_ = './_base_/in1k_repvit_distill.py'
model = dict(backbone=dict(arch='m0_6'))
