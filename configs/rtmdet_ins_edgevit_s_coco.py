# No published figure with this backbone; recipe of RTMDet-Ins. The authors released no weights;
# these are EasyCV's (top-1 80.3, the paper's 81.0).
_base_ = './_base_/rtmdet_ins_edgevit.py'
checkpoint = (
    'https://pai-vision-data-hz.oss-cn-zhangjiakou.aliyuncs.com/EasyCV/modelzoo/'
    'classification/edgevit/edges/ClsEvaluator_neck_top1_best.pth')
model = dict(
    backbone=dict(arch='s', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 240, 384], out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128))
