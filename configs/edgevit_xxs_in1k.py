# Published: top-1 74.4 (EdgeViT paper); EasyCV 75.18 with a recipe of its own. Recipe: saic-
# fi/edgevit.
_base_ = './_base_/in1k_edgevit.py'
model = dict(backbone=dict(arch='xxs'))
