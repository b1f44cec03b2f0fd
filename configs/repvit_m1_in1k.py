# No published figure without a teacher; with one, top-1 78.542 (timm's conversion of the weights
# of the paper's first version). Recipe: THU-MIG/RepViT.
_base_ = './_base_/in1k_repvit.py'
model = dict(backbone=dict(arch='m1'))
