"""The heads that compare_heads.py compares, as changes of a config."""

from typing import Any

from mmengine.registry import MODELS
from torch import nn

from lightvit_mm.engine.configs import load_config

STRIDES = [8, 16, 32, 64, 128]
FOCAL = {'type': 'FocalLoss', 'use_sigmoid': True, 'gamma': 2.0, 'alpha': 0.25}
QUALITY_FOCAL = {'type': 'QualityFocalLoss', 'use_sigmoid': True, 'beta': 2.0}
GIOU = {'type': 'GIoULoss', 'loss_weight': 2.0}
DICE = {'type': 'DiceLoss', 'loss_weight': 2.0, 'eps': 5e-6, 'reduction': 'mean'}
CENTERNESS = {'type': 'CrossEntropyLoss', 'use_sigmoid': True}
BN = {'type': 'BN'}


@MODELS.register_module()
class SeparableConv(nn.Sequential):
    """A depthwise and a pointwise convolution, for ``conv_cfg``; the arguments of ``Conv2d``."""

    transposed, output_padding, dilation, groups = False, 0, 1, 1

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, **other: Any
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, kernel, stride, padding, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=other['bias']),
        )
        self.in_channels, self.out_channels = inputs, outputs
        self.kernel_size, self.stride, self.padding = kernel, stride, padding


def fpn_detector(kind: str, width: int, convs: int, levels: int, **head: Any) -> dict:
    """A detector with mmdet's FPN and one of its dense heads, all ``width`` channels wide."""
    return {
        'type': kind,
        'neck': {'out_channels': width, 'num_outs': levels},
        'bbox_head': {
            '_delete_': True,
            'type': f'{kind}Head',
            'num_classes': 80,
            'in_channels': width,
            'feat_channels': width,
            'stacked_convs': convs,
            **head,
        },
        'test_cfg': {'nms': {'iou_threshold': 0.6}},
    }


def retinanet(width: int, convs: int, scale: int, levels: int) -> dict:
    """RetinaNet with the losses of the quickstart; the smallest anchors have ``scale`` strides."""
    anchors = {'octave_base_scale': scale, 'strides': STRIDES[:levels]}
    return {
        'neck': {'out_channels': width, 'num_outs': levels},
        'bbox_head': {
            'in_channels': width,
            'feat_channels': width,
            'stacked_convs': convs,
            'anchor_generator': anchors,
        },
    }


def one_anchor(kind: str, width: int, convs: int, levels: int, **head: Any) -> dict:
    """GFL or ATSS: one square anchor a place, assigned by ATSS."""
    anchors = {
        'type': 'AnchorGenerator',
        'ratios': [1.0],
        'octave_base_scale': 4,
        'scales_per_octave': 1,
        'strides': STRIDES[:levels],
    }
    model = fpn_detector(
        kind, width, convs, levels, anchor_generator=anchors, loss_bbox=GIOU, **head
    )
    assigner = {'type': 'ATSSAssigner', 'topk': 9}
    model['train_cfg'] = {
        '_delete_': True,
        'assigner': assigner,
        'pos_weight': -1,
        'allowed_border': -1,
    }
    return model


def gfl(width: int, convs: int, levels: int, **head: Any) -> dict:
    """GFL as mmdet has it, but for what ``head`` says."""
    dfl = {'type': 'DistributionFocalLoss', 'loss_weight': 0.25}
    head = {'norm_cfg': None, 'loss_cls': QUALITY_FOCAL, 'loss_dfl': dfl, **head}
    return one_anchor('GFL', width, convs, levels, **head)


def atss(width: int, convs: int, levels: int) -> dict:
    """ATSS as mmdet has it."""
    coder = {
        'type': 'DeltaXYWHBBoxCoder',
        'target_means': [0.0] * 4,
        'target_stds': [0.1, 0.1, 0.2, 0.2],
    }
    losses = {'loss_cls': FOCAL, 'loss_centerness': CENTERNESS}
    return one_anchor('ATSS', width, convs, levels, norm_cfg=None, bbox_coder=coder, **losses)


def fcos(width: int, convs: int, levels: int, **head: Any) -> dict:
    """FCOS with the later improvements of its authors."""
    ends = [64 * 2**level for level in range(levels - 1)]
    ranges = list(zip([-1, *ends], [*ends, 1e8], strict=True))
    improved = {'center_sampling': True, 'norm_on_bbox': True, 'centerness_on_reg': True}
    losses = {'loss_cls': FOCAL, 'loss_bbox': GIOU, 'loss_centerness': CENTERNESS}
    strides = STRIDES[:levels]
    return fpn_detector(
        'FCOS', width, convs, levels, strides=strides, regress_ranges=ranges, **improved, **losses,
        **head,
    )  # fmt: skip


def rtmdet(width: int) -> dict:
    """RTMDet-tiny's neck and head."""
    layers = {
        'norm_cfg': {'type': 'BN', 'momentum': 0.03, 'eps': 0.001},
        'act_cfg': {'type': 'SiLU', 'inplace': True},
    }
    points = {'type': 'MlvlPointGenerator', 'offset': 0, 'strides': STRIDES[:3]}
    return {
        'type': 'RTMDet',
        'backbone': {'out_indices': (1, 2, 3)},
        'neck': {
            '_delete_': True,
            'type': 'CSPNeXtPAFPN',
            'in_channels': [72, 144, 288],
            'out_channels': width,
            'num_csp_blocks': 1,
            'expand_ratio': 0.5,
            **layers,
        },
        'bbox_head': {
            '_delete_': True,
            'type': 'RTMDetSepBNHead',
            'num_classes': 80,
            'in_channels': width,
            'feat_channels': width,
            'stacked_convs': 2,
            'with_objectness': False,
            'anchor_generator': points,
            'bbox_coder': {'type': 'DistancePointBBoxCoder'},
            'loss_cls': QUALITY_FOCAL,
            'loss_bbox': GIOU,
            **layers,
        },
        'train_cfg': {
            '_delete_': True,
            'assigner': {'type': 'DynamicSoftLabelAssigner', 'topk': 13},
            'pos_weight': -1,
            'allowed_border': -1,
        },
        'test_cfg': {'nms': {'iou_threshold': 0.6}},
    }


def rtmdet_ins(width: int) -> dict:
    """RTMDet-Ins-tiny's neck and head."""
    model = rtmdet(width)
    del model['bbox_head']['with_objectness']
    model['bbox_head'].update(type='RTMDetInsSepBNHead', loss_mask=DICE)
    model['data_preprocessor'] = {'pad_mask': True}
    model['test_cfg'].update(
        nms_pre=1000, score_thr=0.05, min_bbox_size=0, max_per_img=300, mask_thr_binary=0.5
    )
    return model


def mask_rcnn(width: int) -> dict:
    """Mask R-CNN as mmdet has it, but narrow, and with anchors that start at 8 pixels."""
    model = load_config('configs/mask_rcnn_edgevit_xxs_coco.py').model.to_dict()
    own = load_config('configs/retinanet_edgevit_xxs_shapes.py').model.backbone.to_dict()
    model.update(_delete_=True, backbone=own)
    model['neck']['out_channels'] = width
    model['rpn_head'].update(in_channels=width, feat_channels=width)
    model['rpn_head']['anchor_generator']['scales'] = [2]
    heads = model['roi_head']
    for extractor in ('bbox_roi_extractor', 'mask_roi_extractor'):
        heads[extractor]['out_channels'] = width
    heads['bbox_head'].update(in_channels=width, fc_out_channels=4 * width)
    heads['mask_head'].update(in_channels=width, conv_out_channels=width)
    model['train_cfg']['rcnn']['sampler']['num'] = 128
    model['test_cfg']['rcnn']['max_per_img'] = 300
    return model


def instance_segmentors() -> dict[str, dict]:
    """What each candidate for masks changes in the model of a narrow RetinaNet, by name."""
    return {'rtmdet_ins_96': rtmdet_ins(96), 'mask_rcnn_64': mask_rcnn(64)}


def detectors(levels: int) -> dict[str, dict]:
    """What each candidate changes in the model of a narrow RetinaNet, by name."""
    separable = {'conv_cfg': {'type': 'SeparableConv'}, 'norm_cfg': BN}
    return {
        'retinanet_64': retinanet(64, 2, 2, levels),
        'retinanet_256': retinanet(256, 4, 4, levels),
        'gfl_64': gfl(64, 2, levels),
        'gfl_96': gfl(96, 2, levels),
        'gfl_96_separable': gfl(96, 4, levels, **separable),
        'fcos_96_separable': fcos(96, 4, levels, **separable),
        'atss_64': atss(64, 2, levels),
        'rtmdet_96': rtmdet(96),
    }


def segmentors() -> dict[str, dict]:
    """Neck and head of our configs for ADE20K, as changes of a config without a neck, by name."""
    changes = {}
    for name in ('segformer', 'lraspp', 'semantic_fpn'):
        config = load_config(f'configs/{name}_edgevit_xxs_ade20k.py')
        model = {
            'backbone': {'out_indices': config.model.backbone.get('out_indices')},
            'decode_head': {'_delete_': True, **config.model.decode_head},
        }
        if 'neck' in config.model:
            model['neck'] = config.model.neck
        changes[name] = {'custom_imports': config.custom_imports, 'model': model}
    return changes
