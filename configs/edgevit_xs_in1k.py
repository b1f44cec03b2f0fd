# Published: top-1 77.5 (EdgeViT paper); EasyCV 77.62 with a recipe of its own. Recipe: saic-
# fi/edgevit.
_base_ = './_base_/in1k_edgevit.py'
model = dict(backbone=dict(arch='xs'))
