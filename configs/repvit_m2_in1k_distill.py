# Published: top-1 80.468 (timm's conversion of the weights of the paper's first version). Recipe:
# THU-MIG/RepViT.
_base_ = './_base_/in1k_repvit_distill.py'
model = dict(backbone=dict(arch='m2'))
