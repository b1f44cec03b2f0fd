"""Detection heads behind EdgeViT-XXS, trained for the same CPU time, and their latency.

The tables of docs/finetune.md. With that page's config and data, one thread:

    python benchmarks/compare_heads.py nuclei.py --classes-from ANN \
        --train-data ANN IMAGES --val-data ANN IMAGES [--heads NAME...] [--minutes 10] [--seed 0]
    python benchmarks/compare_heads.py nuclei.py --latency

Neck and head of the config are replaced by each candidate's; backbone, data, augmentation and
optimizer stay, and from ``load_from`` each takes the tensors that fit. The first command trains as
many steps as fit into the minutes, so that the learning rate has reached its end by then, and
evaluates the average of the weights. The second times whole detectors with 80 classes at 640 x 640
in the deploy form, on as many threads as torch has.
"""

import argparse
import copy
import statistics
import time
from functools import partial
from typing import Any

import torch
from mmcv.cnn import fuse_conv_bn
from mmdet.structures import DetDataSample
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS, init_default_scope
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table
from torch import nn

from lightvit_mm.engine.arguments import (
    add_own_data_arguments,
    add_run_arguments,
    config_of,
    with_own_data,
)
from lightvit_mm.engine.running import train
from lightvit_mm.measure.complexity import count_macs, inference_form
from lightvit_mm.measure.timing import alternate, summarise

SIDE = 640  # of the images to time
# Steps that are timed to find out how many fit, and those before them that are not.
TIMED, IGNORED = 10, 3
STRIDES = [8, 16, 32, 64, 128]
LEVELS = 3  # to train with, as the quickstart's detector has them
METRICS = {'box AP': 'mAP', 'AP50': 'mAP_50', 'AP75': 'mAP_75'}
FOCAL = {'type': 'FocalLoss', 'use_sigmoid': True, 'gamma': 2.0, 'alpha': 0.25}
QUALITY_FOCAL = {'type': 'QualityFocalLoss', 'use_sigmoid': True, 'beta': 2.0}
GIOU = {'type': 'GIoULoss', 'loss_weight': 2.0}
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


def candidates(levels: int) -> dict[str, dict]:
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


@HOOKS.register_module()
class CpuTime(Hook):
    """Collects the CPU seconds of the training steps, with their data, in this process."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def before_train_epoch(self, runner: Any) -> None:
        """Start the clock."""
        self.last = time.process_time()

    def after_train_iter(self, *_: Any, **__: Any) -> None:
        """Note the time since the last step."""
        now = time.process_time()
        self.steps.append(now - self.last)
        self.last = now


def train_for(args: argparse.Namespace, name: str) -> dict[str, float]:
    """Train a candidate for the minutes; returns its steps, their minutes, and the metrics."""
    seconds = cpu_times(run(args, name, IGNORED + TIMED, evaluate=False))
    steps = int(60 * args.minutes / statistics.median(seconds[IGNORED:]))
    runner = run(args, name, steps, evaluate=True)
    scalars = runner.message_hub.log_scalars
    metrics = {}
    for metric, key in METRICS.items():
        found = scalars.get(f'val/coco/bbox_{key}')
        metrics[metric] = found.current() if found else 0.0  # mmdet logs none without detections
    return {'steps': steps, 'minutes': sum(cpu_times(runner)) / 60, **metrics}


def cpu_times(runner: Runner) -> list[float]:
    """Seconds of each step of a run."""
    return next(hook for hook in runner.hooks if isinstance(hook, CpuTime)).steps


def run(args: argparse.Namespace, name: str, steps: int, evaluate: bool) -> Runner:
    """Train a candidate for a number of steps."""
    config = config_of(args)
    config.merge_from_dict({'model': copy.deepcopy(candidates(LEVELS)[name])})
    with_own_data(config, args)
    config.work_dir = f'{config.work_dir}/{name}_seed_{args.seed}_{steps}_steps'
    config.randomness = {'seed': args.seed}
    config.train_cfg = {'type': 'IterBasedTrainLoop', 'max_iters': steps, 'val_interval': steps}
    config.param_scheduler = [
        {'type': 'LinearLR', 'start_factor': 0.01, 'by_epoch': False, 'end': 50},
        {'type': 'CosineAnnealingLR', 'eta_min_ratio': 0.01, 'by_epoch': False, 'end': steps},
    ]
    config.log_processor.by_epoch = False
    config.default_hooks.checkpoint = {'type': 'WholeCheckpointHook', 'by_epoch': False}
    config.default_hooks.checkpoint.interval = steps
    config.custom_hooks = [{'type': 'EMAHook', 'momentum': 0.02}, {'type': 'CpuTime'}]
    # RTMDet's head shares convolutions between levels.
    config.merge_from_dict({'optim_wrapper.paramwise_cfg.bypass_duplicate': True})
    for part in ('train', 'val', 'test'):
        # In this process, whose CPU time counts.
        config[f'{part}_dataloader'].update(num_workers=0, persistent_workers=False)
    if not evaluate:
        config.val_cfg = config.val_dataloader = config.val_evaluator = None
    return train(config)


def time_heads(args: argparse.Namespace) -> Table:
    """Time whole detectors as they would be for COCO, without detections to suppress."""
    image, calls, macs = torch.randn(1, 3, SIDE, SIDE), {}, {}
    for name in args.heads:
        config = config_of(args)
        config.merge_from_dict({'model': copy.deepcopy(candidates(len(STRIDES))[name])})
        if name.startswith('rtmdet'):
            config.model.bbox_head.share_conv = False  # each norm is folded into its own
        config.model.bbox_head.num_classes = 80
        init_default_scope(config.default_scope)
        model = MODELS.build(config.model)
        model.init_weights()
        macs[name] = count_macs(inference_form(model), SIDE, SIDE)
        model.eval().backbone.switch_to_deploy()
        fuse_conv_bn(model.neck)
        fuse_conv_bn(model.bbox_head)
        calls[name] = partial(predict, model, image)
    with torch.inference_mode():
        timings = summarise(alternate(calls, args.rounds), args.heads[0])
    table = Table('head', 'GMACs', 'ms', f'times as fast as {args.heads[0]}')
    for row in timings:
        ms = f'{1e3 * row.median:.0f}'
        table.add_row(row.name, f'{macs[row.name] / 1e9:.1f}', ms, f'{row.ratio:.2f}')
    return table


def predict(model: nn.Module, image: torch.Tensor) -> Any:
    """Detections of one normalised image."""
    meta = {'img_shape': (SIDE, SIDE), 'ori_shape': (SIDE, SIDE), 'scale_factor': (1.0, 1.0)}
    return model.predict(image, [DetDataSample(metainfo=meta)])


def main() -> None:
    """Train or time, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_run_arguments(parser)
    add_own_data_arguments(parser)
    names = list(candidates(LEVELS))
    parser.add_argument('--heads', nargs='+', choices=names, default=names)
    parser.add_argument('--minutes', type=float, default=10.0, help='CPU minutes for each (10)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--latency', action='store_true', help='time them instead of training')
    parser.add_argument('--rounds', type=int, default=10)
    args = parser.parse_args()
    if args.latency:
        Console().print(time_heads(args))
        return
    table = Table('head', 'steps', 'CPU minutes', *METRICS)
    for name in args.heads:
        steps, minutes, *metrics = train_for(args, name).values()
        table.add_row(name, str(steps), f'{minutes:.1f}', *(f'{value:.3f}' for value in metrics))
        Console().print(table)


if __name__ == '__main__':
    main()
