# Drop path is that of T2T-ViT's classification training.
_base_ = ['./upernet.py', './ade20k.py', './recipe_repvit_segmentation.py']
model = dict(backbone=dict(type='ShuffleT2TViT', drop_path_rate=0.1))
