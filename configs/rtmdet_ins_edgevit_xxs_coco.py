# No published figure with this backbone; recipe of RTMDet-Ins. The authors released no weights;
# these are EasyCV's (top-1 75.18, the paper's 74.4).
_base_ = './_base_/rtmdet_ins_edgevit.py'
checkpoint = (
    'https://pai-vision-data-hz.oss-cn-zhangjiakou.aliyuncs.com/EasyCV/modelzoo/'
    'classification/edgevit/edgexxs/ClsEvaluator_neck_top1_best.pth')
model = dict(
    backbone=dict(arch='xxs', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[72, 144, 288]))
