# Published: top-1 80.7 in 300 epochs, 81.2 in 450, the best epoch (THU-MIG/RepViT README).
# Recipe: THU-MIG/RepViT.
_base_ = './_base_/in1k_repvit_distill.py'
model = dict(backbone=dict(arch='m1_1'))
