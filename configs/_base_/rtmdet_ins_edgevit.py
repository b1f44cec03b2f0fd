# Drop path is that of EdgeViT's classification code; the output norm is that code's last BatchNorm.
_base_ = ['./rtmdet_ins.py', './recipe_rtmdet_ins.py']
model = dict(
    backbone=dict(type='EdgeViT', out_indices=(1, 2, 3), drop_path_rate=0.1, out_norm=True))
