# For the comparison in docs/quickstart.md, from random weights. No publication has it. The third
# level, stride 64, is left out, and the neck makes stride 8.
_base_ = './_base_/retinanet_shapes.py'
model = dict(
    backbone=dict(type='EfficientViT', arch='m0', out_indices=(0, 1)),
    neck=dict(
        _delete_=True,
        type='EfficientViTFPN',
        in_channels=[64, 128],
        out_channels=64,
        num_outs=3,
        num_extra_trans_convs=1))
