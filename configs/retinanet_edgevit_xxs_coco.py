# Published: box AP 38.7 (EMOv2 Table IX; that table has 13.1 M parameters, the code gives 13.396
# M). Recipe of PVT, which the authors are remembered to follow: uncertain. They released no
# weights; these are EasyCV's (top-1 75.18, the paper's 74.4).
_base_ = './_base_/retinanet_edgevit.py'
checkpoint = (
    'https://pai-vision-data-hz.oss-cn-zhangjiakou.aliyuncs.com/EasyCV/modelzoo/'
    'classification/edgevit/edgexxs/ClsEvaluator_neck_top1_best.pth')
model = dict(
    backbone=dict(arch='xxs', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[36, 72, 144, 288]))
