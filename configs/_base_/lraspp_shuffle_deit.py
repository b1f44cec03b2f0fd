# Drop path is that of DeiT's classification training.
_base_ = './lraspp.py'
model = dict(backbone=dict(type='ShuffleDeiT', drop_path_rate=0.1))
