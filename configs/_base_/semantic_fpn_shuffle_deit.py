# Drop path is that of DeiT's classification training.
_base_ = ['./semantic_fpn.py', './ade20k.py', './recipe_repvit_segmentation.py']
model = dict(backbone=dict(type='ShuffleDeiT', drop_path_rate=0.1))
