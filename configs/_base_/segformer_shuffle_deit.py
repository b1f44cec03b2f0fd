# Drop path is that of DeiT's classification training.
_base_ = ['./segformer.py', './recipe_segformer.py']
model = dict(backbone=dict(type='ShuffleDeiT', drop_path_rate=0.1))
