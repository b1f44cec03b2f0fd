# Maps whose sides are odd are resized in the last stage, whose patches are 2 x 2, as in the
# authors' code; sides that are multiples of 64 would avoid it, and are not asked for here.
_base_ = ['./lraspp.py', './input_mobilevit.py']
model = dict(
    data_preprocessor={{_base_.mobilevit_input}},
    backbone=dict(type='MobileViT', norm_eval=True))
