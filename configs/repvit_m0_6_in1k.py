# No published figure without a teacher; with one, top-1 74.1 (repvit_m0_6_in1k_distill.py).
# Recipe: THU-MIG/RepViT.
_base_ = './_base_/in1k_repvit.py'
model = dict(backbone=dict(arch='m0_6'))
