"""Real trainings through the command that users type, one of them killed and resumed."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import lightvit_mm
from lightvit_mm.carried import CONFIGS
from lightvit_mm.engine.history import read_history
from lightvit_mm.engine.whole_files import latest_checkpoint
from lightvit_mm.errors import UserError
from lightvit_mm.gpu_check.context import Context
from lightvit_mm.gpu_check.record import Check, Finding, Row
from lightvit_mm.shapes.dataset import make_shapes

CONFIG = 'retinanet_edgevit_xxs_shapes'
# Box AP of these four epochs in single precision on a CPU, and how far AMP on a GPU may stay below.
CPU_AP, BELOW = 0.562, 0.06
PARTS = ('train', 'val')
# As in docs/finetune.md, but from random weights.
NUCLEI = """_base_ = {base!r}
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale_factor=1.0),
    dict(type='RandomCrop', crop_size=(256, 256)),
    dict(
        type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.0),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(test_cfg=dict(max_per_img=300))
"""


def run(context: Context, job: str) -> None:
    """Train on the embedded data set or on nuclei; both at the same time where cores are free.

    Args:
        context: the surroundings.
        job: ``shapes`` or ``nuclei``.
    """
    train = train_shapes if job == 'shapes' else train_nuclei
    context.attempt(job, partial(train, context), 60)


def train_shapes(context: Context) -> Iterator[Finding]:
    """Train the quickstart's detector; kill it after its first epoch, and resume it."""
    quick = context.settings.quick
    images, epochs = (40, 2) if quick else (2400, 4)
    with tempfile.TemporaryDirectory() as folder:
        data, work_dir = Path(folder, 'shapes'), Path(folder, 'run')
        make_shapes(data, num_train=images, num_val=max(images // 24, 1))
        arguments = [CONFIG, '--data-root', str(data), *_schedule(epochs, quick)]
        begin = time.perf_counter()
        with started(arguments, work_dir) as process:
            while latest_checkpoint(work_dir) is None:
                if process.poll() is not None:
                    raise RuntimeError('the training ended before its first epoch did')
                time.sleep(0.1)
            process.kill()
        killed = read_history(work_dir).iterations
        finish(['--resume', *arguments], work_dir)
        seconds = time.perf_counter() - begin
        last = max(work_dir.glob('*/vis_data/scalars.json'))
        first = json.loads(last.read_text().partition('\n')[0])['step']
        yield Check(f'resumed after iteration {killed}, not at 0', float(first <= killed), 0.0)
        yield from _results(f'shapes, {epochs} epochs', work_dir, seconds)
        if not quick:
            below = CPU_AP - _box_ap(work_dir)
            yield Check(f"shapes: box AP below the CPU's {CPU_AP}", below, BELOW)


def train_nuclei(context: Context) -> Iterator[Finding]:
    """Train the same detector on crops of a user's own images."""
    root, quick = context.settings.nuclei, context.settings.quick
    if root is None:
        raise UserError('--nuclei names no folder')
    epochs = 1 if quick else 12
    with tempfile.TemporaryDirectory() as folder:
        config, work_dir = Path(folder, 'nuclei.py'), Path(folder, 'run')
        config.write_text(NUCLEI.format(base=str(CONFIGS / f'{CONFIG}.py')))
        annotations = {part: f'{root}/annotations/instances_{part}.json' for part in PARTS}
        arguments = [str(config), '--classes-from', annotations['train']]
        for part, file in annotations.items():
            arguments += [f'--{part}-data', file, f'{root}/images/{part}']
        arguments += _schedule(epochs, quick)
        if quick:
            arguments += [f'{part}_dataloader.dataset.indices=16' for part in PARTS]
        begin = time.perf_counter()
        finish(arguments, work_dir)
        seconds = time.perf_counter() - begin
        yield from _results(f'nuclei, {epochs} epochs', work_dir, seconds)


def _schedule(epochs: int, quick: bool) -> list[str]:
    return [
        '--amp',
        '--cfg-options',
        f'train_cfg.max_epochs={epochs}',
        f'train_cfg.val_interval={epochs}',
        f'param_scheduler.1.end={epochs}',
        'default_hooks.checkpoint.interval=1',
        f'default_hooks.logger.interval={1 if quick else 25}',
        f'train_dataloader.num_workers={1 if quick else 4}',
        # After so short a training, no box would pass the usual threshold.
        *(['model.test_cfg.score_thr=0.0'] if quick else []),
    ]


def started(arguments: Sequence[str], work_dir: Path) -> subprocess.Popen:
    """Start the train command in a process of its own.

    Args:
        arguments: of the command; a config at first.
        work_dir: output folder.
    """
    command = [sys.executable, '-m', 'lightvit_mm', 'train', *arguments]
    # Ahead of --cfg-options, which takes all that follows.
    command[5:5] = ['--work-dir', str(work_dir)]
    # The package may not be installed.
    paths = [str(Path(lightvit_mm.__file__).parents[1]), os.environ.get('PYTHONPATH', '')]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))}
    return subprocess.Popen(command, env=environment)


def finish(arguments: Sequence[str], work_dir: Path) -> None:
    """Run the train command to its end.

    Raises:
        RuntimeError: it failed.
    """
    with started(arguments, work_dir) as process:
        status = process.wait()
    if status != 0:
        raise RuntimeError(f'the training ended with status {status}')


def _box_ap(work_dir: Path) -> float:
    """From 0 to 1; NaN without an evaluation after the last step, or without any box."""
    return read_history(work_dir).final().get('bbox_mAP', math.nan) / 100


def _results(name: str, work_dir: Path, seconds: float) -> Iterator[Finding]:
    history = read_history(work_dir)
    losses = [history.loss[step] for step in sorted(history.loss)]
    part = max(len(losses) // 4, 1)
    cells: dict[str, float | str] = {'data': name, 'box AP': _box_ap(work_dir), 'seconds': seconds}
    cells['ms a step'] = 1e3 * median(history.time.values())
    cells['of it waiting for data'] = 1e3 * median(history.data_time.values())
    cells['peak MB'] = max(history.memory.values(), default=0.0)
    yield Row('Training, RetinaNet-EdgeViT-XXS, AMP; from start to end, imports included', cells)
    fell = (sum(losses[-part:]) / part) / (sum(losses[:part]) / part)
    yield Check(f'{name}: last quarter of the losses over the first', fell, 1.0)
