# No published figure without a teacher; with one, top-1 80.7 in 300 epochs, 81.2 in 450
# (repvit_m1_1_in1k_distill.py). Recipe: THU-MIG/RepViT.
_base_ = './_base_/in1k_repvit.py'
model = dict(backbone=dict(arch='m1_1'))
