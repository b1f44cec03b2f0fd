# Drop path is that of the classification configs of an author's fork.
_base_ = ['./semantic_fpn.py', './ade20k.py', './recipe_repvit_segmentation.py']
model = dict(backbone=dict(type='ShuffleSwin', drop_path_rate=0.1))
