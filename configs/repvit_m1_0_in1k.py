# No published figure without a teacher; with one, top-1 80.0 in 300 epochs, 80.3 in 450
# (repvit_m1_0_in1k_distill.py). Recipe: THU-MIG/RepViT.
_base_ = './_base_/in1k_repvit.py'
model = dict(backbone=dict(arch='m1_0'))
