"""Real trainings through the command that users type, killed once and resumed."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median

import lightvit_mm
from gpu.context import Context
from gpu.record import Check, Finding, Row, Skipped
from lightvit_mm.carried import CONFIGS
from lightvit_mm.engine.history import read_history
from lightvit_mm.engine.whole_files import latest_checkpoint
from lightvit_mm.errors import UserError
from lightvit_mm.shapes.dataset import make_shapes

CONFIG = 'retinanet_edgevit_xxs_shapes'
EPOCHS = {'shapes': 12, 'nuclei': 6}
INTERVAL = 3  # epochs from one validation to the next
# A GPU takes about as long for a step of 16 images as for one of the config's 4, and twelve epochs
# have 1740 of them instead of 6948. AdamW's learning rate grows with the root of the batch.
LARGER_BATCH = ('train_dataloader.batch_size=16', 'optim_wrapper.optimizer.lr=2e-3')
# Box AP by epoch in single precision on a CPU, see docs/performance.md; and how far below it AMP on
# a GPU may end.
CPU_AP = {
    'shapes': {3: 0.167, 6: 0.543, 9: 0.648, 12: 0.692},
    'nuclei': {3: 0.194, 6: 0.308},
}
BELOW = 0.05
SECONDS_TO_STOP = 5.0
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

    The training is killed after its first epoch and resumed. If it does not come to its end in the
    time of the part, it is stopped, and the next call in the same run of the check goes on with it.

    Args:
        context: the surroundings.
        job: ``shapes`` or ``nuclei``.
    """
    context.attempt(f'training on {job}', partial(train, context, job), 25)


def train(context: Context, job: str) -> Iterator[Finding]:
    """Train as far as the time allows; see `run`."""
    folder, quick = context.scratch / job, context.settings.quick
    work_dir = folder / 'run'
    epochs, every = (2, 1) if quick else (EPOCHS[job], INTERVAL)
    arguments = _shapes(folder, quick) if job == 'shapes' else _nuclei(folder, context)
    arguments += _options(job, epochs, every, context)
    reported = set(_box_ap(work_dir))
    if epochs in reported:
        return
    begin, until = time.perf_counter(), context.until - SECONDS_TO_STOP
    is_new = latest_checkpoint(work_dir) is None
    if is_new:
        with started(arguments, work_dir) as process:
            for _ in _ticks(process, until):
                if latest_checkpoint(work_dir) is not None:
                    break
            process.kill()
        if latest_checkpoint(work_dir) is None:
            yield Skipped(f'{job}: all epochs', 'no time was left in this part')
            return
    with started(['--resume', *arguments], work_dir) as process:
        for _ in _ticks(process, until):
            yield from _new_rows(job, epochs, work_dir, reported, begin)
        process.kill()
    yield from _new_rows(job, epochs, work_dir, reported, begin)
    steps = [_first_step(log) for log in _logs(work_dir)]
    if is_new and len(steps) > 1:
        yield Check(f'{job}: began again instead of resuming', float(steps[-1] <= steps[0]), 0.0)
    if process.returncode != 0:
        done = Path(str(latest_checkpoint(work_dir))).stem
        yield Skipped(f'{job} after {done} of {epochs}', 'no time was left in this part')
        return
    losses = [value for _, value in sorted(read_history(work_dir).loss.items())]
    part = max(len(losses) // 4, 1)
    fell = sum(losses[-part:]) / sum(losses[:part])
    yield Check(f'{job}: last quarter of the losses over the first', fell, 1.0)
    if epochs in CPU_AP[job]:
        expected = CPU_AP[job][epochs]
        below = expected - _box_ap(work_dir).get(epochs, math.nan)
        yield Check(f"{job}: box AP below the CPU's {expected}", below, BELOW)


def _shapes(folder: Path, quick: bool) -> list[str]:
    images = 40 if quick else 2400
    if not (folder / 'data').exists():
        make_shapes(folder / 'data', num_train=images, num_val=max(images // 24, 1))
    return [CONFIG, '--data-root', str(folder / 'data')]


def _nuclei(folder: Path, context: Context) -> list[str]:
    root = context.settings.nuclei
    if root is None:
        raise UserError('--nuclei names no folder')
    config = folder / 'nuclei.py'
    folder.mkdir(exist_ok=True)
    config.write_text(NUCLEI.format(base=str(CONFIGS / f'{CONFIG}.py')))
    annotations = {part: f'{root}/annotations/instances_{part}.json' for part in PARTS}
    arguments = [str(config), '--classes-from', annotations['train']]
    for part, file in annotations.items():
        arguments += [f'--{part}-data', file, f'{root}/images/{part}']
    return arguments


def _options(job: str, epochs: int, every: int, context: Context) -> list[str]:
    quick, on_gpu = context.settings.quick, context.settings.on_gpu
    options = ['--amp'] if quick or on_gpu else []  # a CPU's AP is in single precision
    options += [
        '--cfg-options',
        f'train_cfg.max_epochs={epochs}',
        f'train_cfg.val_interval={every}',
        f'param_scheduler.1.end={epochs}',
        'default_hooks.checkpoint.interval=1',
        f'default_hooks.logger.interval={1 if quick else 25}',
        f'train_dataloader.num_workers={4 if on_gpu else 1}',
    ]
    if quick:
        # After so short a training, no box would pass the usual threshold.
        options += ['model.test_cfg.score_thr=0.0']
        if job == 'nuclei':
            options += [f'{part}_dataloader.dataset.indices=16' for part in PARTS]
    elif job == 'shapes':
        options += LARGER_BATCH
    return options


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


def _ticks(process: subprocess.Popen, until: float) -> Iterator[None]:
    """Wait for the end of a process, at most until a time of `time.monotonic`.

    Yields:
        Nothing, twice a second.

    Raises:
        RuntimeError: it failed.
    """
    while process.poll() is None and time.monotonic() < until:
        yield
        time.sleep(0.5)
    if process.poll():
        raise RuntimeError(f'the training ended with status {process.returncode}')


def _logs(work_dir: Path) -> list[Path]:
    """The logs of a training, one for each time that it was started."""
    return [log for log in sorted(work_dir.glob('*/vis_data/scalars.json')) if log.stat().st_size]


def _first_step(log: Path) -> int:
    return json.loads(log.read_text().partition('\n')[0])['step']


def _box_ap(work_dir: Path) -> dict[int, float]:
    """Box AP, from 0 to 1, by epoch; without those after which there was no box."""
    found: dict[int, float] = {}
    for log in _logs(work_dir):
        for line in log.read_text().splitlines():
            with suppress(ValueError):  # being written
                entry = json.loads(line)
                if 'coco/bbox_mAP' in entry:
                    found[entry['step']] = entry['coco/bbox_mAP']
    return found


def _new_rows(
    job: str, epochs: int, work_dir: Path, reported: set[int], begin: float
) -> Iterator[Row]:
    for epoch, ap in _box_ap(work_dir).items():
        if epoch in reported:
            continue
        reported.add(epoch)
        history = read_history(work_dir)
        cells: dict[str, float | str | None] = {'data': job, 'epoch': f'{epoch} of {epochs}'}
        cells |= {'box AP': ap, 'on a CPU': CPU_AP[job].get(epoch)}
        cells['seconds in this part'] = time.perf_counter() - begin
        cells['ms a step'] = 1e3 * median(history.time.values())
        cells['of it waiting for data'] = 1e3 * median(history.data_time.values())
        cells['peak MB'] = max(history.memory.values(), default=0.0)
        yield Row('Training RetinaNet-EdgeViT-XXS, imports included', cells)
