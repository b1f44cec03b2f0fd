# No published figure with this backbone; recipe of SegFormer for ADE20K. The authors released no
# weights; these are EasyCV's (top-1 80.3, the paper's 81.0).
_base_ = './_base_/segformer_edgevit.py'
checkpoint = (
    'https://pai-vision-data-hz.oss-cn-zhangjiakou.aliyuncs.com/EasyCV/modelzoo/'
    'classification/edgevit/edges/ClsEvaluator_neck_top1_best.pth')
model = dict(
    backbone=dict(arch='s', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(in_channels=[48, 96, 240, 384], channels=256))
