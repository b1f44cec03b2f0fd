# Drop path is that of the classification configs of an author's fork.
_base_ = './rtmdet_ins_mapped.py'
model = dict(backbone=dict(type='ShuffleSwin', out_indices=(1, 2, 3), drop_path_rate=0.1))
