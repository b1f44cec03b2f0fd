# No published figure with this backbone; recipe of SegFormer for ADE20K. The authors released no
# weights; these are EasyCV's (top-1 75.18, the paper's 74.4).
_base_ = './_base_/lraspp_edgevit.py'
checkpoint = (
    'https://pai-vision-data-hz.oss-cn-zhangjiakou.aliyuncs.com/EasyCV/modelzoo/'
    'classification/edgevit/edgexxs/ClsEvaluator_neck_top1_best.pth')
model = dict(
    backbone=dict(arch='xxs', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(in_channels=[36, 144, 288]))
