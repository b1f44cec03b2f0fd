# Drop path is that of T2T-ViT's classification training.
_base_ = './lraspp.py'
model = dict(backbone=dict(type='ShuffleT2TViT', drop_path_rate=0.1))
