# Drop path is that of the classification configs of an author's fork.
_base_ = './lraspp.py'
model = dict(backbone=dict(type='ShuffleSwin', drop_path_rate=0.1))
