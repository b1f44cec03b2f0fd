# Published: top-1 69.0 (MobileViT paper and cvnets-v0.1 README), of the averaged weights. Recipe:
# cvnets-v0.1.
_base_ = './_base_/in1k_mobilevit.py'
model = dict(backbone=dict(arch='xxs', drop_rate=0.05))
