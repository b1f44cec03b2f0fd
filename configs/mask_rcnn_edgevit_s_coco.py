# Published: box AP 44.8, mask AP 41.0 (EdgeViT paper, from memory; parameters agree). Recipe of
# PVT, which the authors are remembered to follow: uncertain. They released no weights; these are
# EasyCV's (top-1 80.3, the paper's 81.0).
_base_ = './_base_/mask_rcnn_edgevit.py'
checkpoint = (
    'https://pai-vision-data-hz.oss-cn-zhangjiakou.aliyuncs.com/EasyCV/modelzoo/'
    'classification/edgevit/edges/ClsEvaluator_neck_top1_best.pth')
model = dict(
    backbone=dict(arch='s', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[48, 96, 240, 384]))
