# Published: top-1 77.1 (EfficientViT paper). Recipe: microsoft/Cream.
_base_ = './_base_/in1k_efficientvit.py'
model = dict(backbone=dict(arch='m5'))
