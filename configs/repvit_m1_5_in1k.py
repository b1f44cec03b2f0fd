# No published figure without a teacher; with one, top-1 82.3 in 300 epochs, 82.5 in 450
# (repvit_m1_5_in1k_distill.py). Recipe: THU-MIG/RepViT.
_base_ = './_base_/in1k_repvit.py'
model = dict(backbone=dict(arch='m1_5'))
