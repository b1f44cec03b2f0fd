# Drop path is that of T2T-ViT's classification training.
_base_ = ['./segformer.py', './recipe_segformer.py']
model = dict(backbone=dict(type='ShuffleT2TViT', drop_path_rate=0.1))
