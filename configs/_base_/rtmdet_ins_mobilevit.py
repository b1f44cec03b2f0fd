_base_ = ['./rtmdet_ins.py', './recipe_rtmdet_ins.py', './input_mobilevit.py']
model = dict(
    data_preprocessor={{_base_.mobilevit_input}},
    backbone=dict(type='MobileViT', out_indices=(1, 2, 3)))
