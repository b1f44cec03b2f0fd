# RepViT (THU-MIG/RepViT, main.py): hard distillation by RegNetY-160, top-1 83.0, which sees the
# mixed images; half of the loss.
_base_ = './in1k_repvit.py'
model = dict(
    head=dict(distilled=True),
    teacher=dict(model='regnety_160', checkpoint='timm://regnety_160.deit_in1k'))
