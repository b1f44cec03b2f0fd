"""A classifier trained for a few epochs on small images."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

from lightvit_mm.engine.history import read_history
from lightvit_mm.errors import UserError
from lightvit_mm.gpu_check.context import Context
from lightvit_mm.gpu_check.record import Check, Finding, Row
from lightvit_mm.gpu_check.training import finish

CONFIG = 'edgevit_xxs_in1k'
BATCH = 256


def run(context: Context, job: str = '') -> None:
    """Train, if a folder is given.

    Args:
        context: the surroundings.
        job: there is only one.
    """
    context.attempt('CIFAR-10', partial(train_classifier, context), 60)


def train_classifier(context: Context) -> Iterator[Finding]:
    """Train the recipe of a backbone, shortened, on folders of images for each class."""
    root, quick = context.settings.cifar10, context.settings.quick
    if root is None:
        raise UserError('--cifar10 names no folder')
    batch, epochs = (8, 1) if quick else (BATCH, 3)
    with tempfile.TemporaryDirectory() as folder:
        work_dir = Path(folder, 'run')
        arguments = [CONFIG, '--train-data', f'{root}/train', '--val-data', f'{root}/test', '--amp']
        arguments += ['--cfg-options', f'train_cfg.max_epochs={epochs}']
        arguments += [f'param_scheduler.{key}' for key in (f'epochs={epochs}', 'warmup_epochs=1')]
        arguments += [f'optim_wrapper.optimizer.lr={2e-3 * batch / 2048 * 4}']
        arguments += [f'train_dataloader.batch_size={batch}', 'default_hooks.logger.interval=1']
        for part in ('train', 'val'):
            arguments += [f'{part}_dataloader.num_workers={1 if quick else 7}']
            arguments += [f'{part}_dataloader.dataset.transform.input_size=64']
        begin = time.perf_counter()
        finish(arguments, work_dir)
        history = read_history(work_dir)
        yield Row(
            f'Training a classifier, {CONFIG}, AMP, 64x64; from start to end, imports included',
            {
                'images': root,
                'epochs': epochs,
                'top-1': history.final()['top1'],
                'seconds': time.perf_counter() - begin,
                'ms a step': 1e3 * median(history.time.values()),
                'of it waiting for data': 1e3 * median(history.data_time.values()),
            },
        )
        losses = [history.loss[step] for step in sorted(history.loss)]
        if len(losses) >= 4:
            count = len(losses) // 4
            fell = sum(losses[-count:]) / sum(losses[:count])
            yield Check('CIFAR-10: last quarter of the losses over the first', fell, 1.0)
