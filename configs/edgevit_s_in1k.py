# Published: top-1 81.0 (EdgeViT paper); EasyCV 80.3 with a recipe of its own. Recipe: saic-
# fi/edgevit.
_base_ = './_base_/in1k_edgevit.py'
model = dict(backbone=dict(arch='s'))
