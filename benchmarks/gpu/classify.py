"""Classifiers trained for a few epochs on small images."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from gpu.context import Context
from gpu.record import Check, Finding, Row
from gpu.training import finish
from lightvit_mm.engine.history import read_history
from lightvit_mm.errors import UserError

# Name, config and changes of it: the channel shuffle stands beside the plain network.
NETWORKS = (
    ('EdgeViT-XXS', 'edgevit_xxs_in1k', ()),
    ('ShuffleDeiT', 'shuffle_deit_tiny_in1k', ()),
    (
        'DeiT',
        'shuffle_deit_tiny_in1k',
        ('model.backbone.shuffle=False', 'model.head.in_channels=192'),
    ),
)
BATCH = 256


def run(context: Context, job: str = '') -> None:
    """Train each of `NETWORKS`, if a folder is given."""
    for network in NETWORKS:
        measure = partial(train_classifier, context, *network)
        context.attempt(f'CIFAR-10, {network[0]}', measure, 60)


def train_classifier(
    context: Context, name: str, config: str, changes: Sequence[str]
) -> Iterator[Finding]:
    """Train the recipe of a backbone, shortened, on folders of images for each class."""
    root, quick = context.settings.cifar10, context.settings.quick
    if root is None:
        raise UserError('--cifar10 names no folder')
    batch, epochs = (8, 1) if quick else (BATCH, 3)
    with tempfile.TemporaryDirectory() as folder:
        work_dir = Path(folder, 'run')
        arguments = [config, '--train-data', f'{root}/train', '--val-data', f'{root}/test', '--amp']
        arguments += ['--cfg-options', *changes, f'train_cfg.max_epochs={epochs}']
        # The recipe's first two epochs are at a rate of almost 0.
        schedule = {'epochs': epochs, 'every': 'step', 'delay': 0, 'warmup_epochs': 0}
        schedule['warmup_steps'] = 5 if quick else 50
        arguments += [f'param_scheduler.{key}={value}' for key, value in schedule.items()]
        arguments += [f'optim_wrapper.optimizer.lr={2e-3 * batch / 2048 * 4}']
        arguments += [f'train_dataloader.batch_size={batch}', 'default_hooks.logger.interval=1']
        for part in ('train', 'val'):
            arguments += [f'{part}_dataloader.num_workers={1 if quick else 7}']
            arguments += [f'{part}_dataloader.dataset.transform.input_size=64']
        begin = time.perf_counter()
        finish(arguments, work_dir)
        history = read_history(work_dir)
        yield Row(
            'Training a classifier, AMP, 64x64; from start to end, imports included',
            {
                'network': name,
                'images': root,
                'epochs': epochs,
                'top-1': history.final()['top1'],
                'seconds': time.perf_counter() - begin,
                'ms a step': 1e3 * median(history.time.values()),
                'of it waiting for data': 1e3 * median(history.data_time.values()),
            },
        )
        losses = [history.loss[step] for step in sorted(history.loss)]
        if not quick:  # so few steps are not expected to learn
            count = len(losses) // 4
            fell = sum(losses[-count:]) / sum(losses[:count])
            yield Check(f'CIFAR-10, {name}: last quarter of the losses over the first', fell, 1.0)
