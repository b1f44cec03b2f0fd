# Published: top-1 68.4 (EfficientViT paper). Recipe: microsoft/Cream.
_base_ = './_base_/in1k_efficientvit.py'
model = dict(backbone=dict(arch='m1'))
