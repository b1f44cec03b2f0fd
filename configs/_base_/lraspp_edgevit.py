# Drop path is that of EdgeViT's classification code; the output norm is that code's last BatchNorm.
_base_ = './lraspp.py'
model = dict(backbone=dict(type='EdgeViT', drop_path_rate=0.1, out_norm=True))
