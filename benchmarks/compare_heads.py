"""Heads behind EdgeViT-XXS, trained for the same CPU time, and the latency of detectors.

The tables of docs/finetune.md and our rows of docs/choose.yml. At the top of the checkout, with the
config and data of docs/finetune.md (or docs/segment.md), one thread:

    python benchmarks/compare_heads.py nuclei.py --classes-from ANN \
        --train-data ANN IMAGES --val-data ANN IMAGES [--heads NAME...] [--minutes 10 | --steps N]
    python benchmarks/compare_heads.py aerial.py --classes-from CLASSES \
        --train-data IMAGES LABELS --val-data IMAGES LABELS [the same options]
    python benchmarks/compare_heads.py nuclei_masks.py [the options of nuclei.py]
    python benchmarks/compare_heads.py nuclei.py --latency

Neck and head of the config are replaced by each candidate's; backbone, data, augmentation and
optimizer stay, and from ``load_from`` each takes the tensors that fit. All commands but the last
train as many steps as fit into the minutes, so that the learning rate has reached its end by then,
or as many as ``--steps`` says, and evaluate once (of detectors, the average of the weights). The
last one times whole detectors with 80 classes at 640 x 640 in the deploy form, on as many threads
as torch has.
"""

import argparse
import copy
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from candidate_heads import STRIDES, detectors, instance_segmentors, segmentors
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
from lightvit_mm.engine.trained_model import deploy_form
from lightvit_mm.measure.complexity import count_macs, inference_form
from lightvit_mm.measure.timing import alternate, summarise

SIDE = 640  # of the images to time
# Steps that are timed to find out how many fit, and those before them that are not.
TIMED, IGNORED = 10, 3
LEVELS = 3  # of detectors to train, as the quickstart's has them
METRICS = {
    'mmdet': {
        'box AP': 'coco/bbox_mAP',
        'AP50': 'coco/bbox_mAP_50',
        'AP75': 'coco/bbox_mAP_75',
    },
    'masks': {
        'box AP': 'coco/bbox_mAP',
        'AP50': 'coco/bbox_mAP_50',
        'mask AP': 'coco/segm_mAP',
        'mask AP50': 'coco/segm_mAP_50',
    },
    'mmseg': {'mIoU': 'mIoU', 'pixel accuracy': 'aAcc'},
}
# Of the two pages: steps of warm-up, and what follows.
SCHEDULES = {
    'mmdet': (50, {'type': 'CosineAnnealingLR', 'eta_min_ratio': 0.01}),
    'mmseg': (20, {'type': 'PolyLR', 'power': 1.0, 'eta_min': 0.0}),
}


@HOOKS.register_module(force=True)
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


def train_for(args: argparse.Namespace, name: str, changes: dict) -> dict[str, Any]:
    """Train a candidate; returns its steps, their CPU minutes, and the metrics."""
    steps = args.steps
    if steps is None:
        seconds = cpu_times(run(args, name, changes, IGNORED + TIMED, evaluate=False))
        steps = max(1, int(60 * args.minutes / statistics.median(seconds[IGNORED:])))
    runner = run(args, name, changes, steps, evaluate=True)
    # Its config is for the tools, which do not know the hook.
    runner.cfg.custom_hooks.pop(0)
    runner.cfg.dump(Path(runner.work_dir, Path(runner.cfg.filename).name))
    scalars = runner.message_hub.log_scalars
    metrics = {}
    for metric, key in METRICS[task_of(runner.cfg)].items():
        found = scalars.get(f'val/{key}')
        metrics[metric] = found.current() if found else 0.0  # mmdet logs none without detections
    return {'steps': steps, 'minutes': sum(cpu_times(runner)) / 60, **metrics}


def task_of(config: Any) -> str:
    """``'masks'`` of objects, if they are evaluated; otherwise the scope of a config."""
    metric = config.val_evaluator.get('metric') if config.val_evaluator else None
    return 'masks' if metric and 'segm' in metric else config.default_scope


def cpu_times(runner: Runner) -> list[float]:
    """Seconds of each step of a run."""
    return next(hook for hook in runner.hooks if isinstance(hook, CpuTime)).steps


def run(args: argparse.Namespace, name: str, changes: dict, steps: int, evaluate: bool) -> Runner:
    """Train a candidate for a number of steps."""
    config = config_of(args)
    config.merge_from_dict(copy.deepcopy(changes))
    with_own_data(config, args)
    config.work_dir = f'{config.work_dir}/{name}_seed_{args.seed}_{steps}_steps'
    config.randomness = {'seed': args.seed}
    config.train_cfg = {'type': 'IterBasedTrainLoop', 'max_iters': steps, 'val_interval': steps}
    warm_up, decay = SCHEDULES[config.default_scope]
    config.param_scheduler = [
        {'type': 'LinearLR', 'start_factor': 0.01, 'by_epoch': False, 'end': warm_up},
        {**decay, 'by_epoch': False, 'end': steps},
    ]
    config.custom_hooks = [{'type': 'CpuTime'}]
    if config.default_scope == 'mmdet':
        config.custom_hooks.append({'type': 'EMAHook', 'momentum': 0.02})
    config.log_processor.by_epoch = False
    config.default_hooks.checkpoint = {'type': 'WholeCheckpointHook', 'by_epoch': False}
    config.default_hooks.checkpoint.interval = steps
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
        config.merge_from_dict({'model': copy.deepcopy(detectors(len(STRIDES))[name])})
        config.model.bbox_head.num_classes = 80
        init_default_scope(config.default_scope)
        model = MODELS.build(config.model)
        model.init_weights()
        macs[name] = count_macs(inference_form(model), SIDE, SIDE)
        calls[name] = partial(predict, deploy_form(model.eval()), image)
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
    parser.add_argument('--heads', nargs='+', metavar='NAME', help='(all)')
    parser.add_argument('--minutes', type=float, default=10.0, help='CPU minutes for each (10)')
    parser.add_argument('--steps', type=int, help='as many steps for each instead')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--latency', action='store_true', help='time detectors, do not train')
    parser.add_argument('--rounds', type=int, default=10)
    args = parser.parse_args()
    task = task_of(config_of(args))
    if task == 'mmseg':
        candidates = segmentors()
    else:
        models = instance_segmentors() if task == 'masks' else detectors(LEVELS)
        candidates = {name: {'model': model} for name, model in models.items()}
    args.heads = args.heads or list(candidates)
    if unknown := set(args.heads) - set(candidates):
        parser.error(f'--heads {" ".join(unknown)}: choose from {" ".join(candidates)}')
    if args.latency:
        if task != 'mmdet':
            parser.error('--latency is for boxes: tools/benchmark.py times the others')
        Console().print(time_heads(args))
        return
    if torch.cuda.is_available():
        parser.error('steps are counted by CPU time: hide the GPU with CUDA_VISIBLE_DEVICES=""')
    table = Table('head', 'steps', 'CPU minutes', *METRICS[task])
    for name in args.heads:
        steps, minutes, *metrics = train_for(args, name, candidates[name]).values()
        table.add_row(name, str(steps), f'{minutes:.1f}', *(f'{value:.3f}' for value in metrics))
        Console().print(table)


if __name__ == '__main__':
    main()
