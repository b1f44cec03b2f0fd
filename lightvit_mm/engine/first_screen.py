"""What a person sees before the first step of a run; the log file has everything."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from lightvit_mm.data.config import datasets_of, is_classifier, resize_scale
from lightvit_mm.engine.resuming import CheckingRunner, bare_model
from lightvit_mm.measure.complexity import count_macs, count_parameters, inference_form
from lightvit_mm.measure.load import busy_cores, usable_cores

# Beginnings of what only the log file gets: the environment, the config, the order of the hooks.
FOR_THE_FILE = (
    f'\n{"-" * 60}\nSystem environment:',
    'Config:\n',
    'Hooks will be executed in the following order:',
    'Distributed training is not used, all SyncBatchNorm',
    'Checkpoints will be saved to',
    'paramwise_options -- ',
    'Exp name:',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)
MAX_CLASSES = 6  # named in a line


class QuietRunner(CheckingRunner):
    """A runner that shows a person what concerns them, and writes the rest to the log file."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger, see mmengine's Runner."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_for_people)
        return logger

    @staticmethod
    def build_dataloader(*args: Any, **kwargs: Any) -> DataLoader:
        """Build a loader without what pycocotools prints meanwhile."""
        with redirect_stdout(io.StringIO()):
            return CheckingRunner.build_dataloader(*args, **kwargs)

    def build_evaluator(self, *args: Any, **kwargs: Any) -> Any:
        """Build an evaluator without what pycocotools prints meanwhile."""
        with redirect_stdout(io.StringIO()):
            return super().build_evaluator(*args, **kwargs)

    def _init_model_weights(self) -> None:
        """Initialise the model without mmengine's list of the initial values in the log file.

        The list has two lines for each parameter; log_level='DEBUG' in the config brings it back.
        """
        model: Any = bare_model(self)
        if self.cfg.get('log_level') != 'DEBUG':
            model._dump_init_info = _write_nothing
        try:
            super()._init_model_weights()
        finally:
            model.__dict__.pop('_dump_init_info', None)


def _is_for_people(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(FOR_THE_FILE)


def _write_nothing() -> None:
    pass


class FirstScreenHook(Hook):
    """Shows what will be trained, on what and where, before the weights are loaded.

    Args:
        listed: number of images in the files of the training data, 0 if unknown.
    """

    def __init__(self, listed: int = 0) -> None:
        self._listed = listed

    def before_run(self, runner: Runner) -> None:
        """Log a line for each of config, data, model, weights, device, schedule and results."""
        subjects = {
            'config': runner.cfg.filename,
            'data': _data(runner, self._listed),
            'model': _model(runner),
            'weights': _weights(runner.cfg),
            'device': _device(runner),
            'busy': _busy(),
            'schedule': _schedule(runner),
            'results': runner.work_dir,
        }
        lines = (f'{subject:<9} {text}' for subject, text in subjects.items() if text)
        runner.logger.info('training\n' + '\n'.join(lines))


def _data(runner: Runner, listed: int) -> str:
    used = len(runner.train_dataloader.dataset)
    parts = [f'{_count(used, "image")} to train']
    filters = getattr(runner.train_dataloader.dataset, 'filter_cfg', None)
    if filters and used < listed:
        settings = ', '.join(f'{key}={value}' for key, value in filters.items())
        parts[0] += f' ({listed - used} of {listed} images left out by {settings})'
    if runner.val_loop is not None:
        parts.append(f'{len(runner.val_dataloader.dataset)} to validate')
    text = ', '.join(parts)
    if classes := getattr(runner.train_dataloader.dataset, 'metainfo', {}).get('classes'):
        named = [*map(str, classes[:MAX_CLASSES]), *(['...'] if len(classes) > MAX_CLASSES else ())]
        text += f'; {len(classes)} classes: {", ".join(named)}'
    return text


def _model(runner: Runner) -> str:
    model: Any = bare_model(runner)
    backbone = runner.cfg.model.get('backbone') or {}
    name = ' '.join(filter(None, (backbone.get('type'), str(backbone.get('arch') or ''))))
    text = f'{type(model).__name__} on {name}: {count_parameters(model) / 1e6:.2f} M parameters'
    size = _input_size(runner.cfg)
    try:
        macs = count_macs(inference_form(model), *size) if size else 0
    except Exception:  # a model that is not ours may need more than images, or a real device
        macs = 0
    return text + (f', {macs / 1e9:.1f} GMACs at {size[0]}x{size[1]}' if size and macs else '')


def _input_size(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of the images: of the crops, or else as they are resized."""
    preprocessor = config['model'].get('data_preprocessor') or {}
    if preprocessor.get('size'):
        height, width = preprocessor['size']
        return height, width
    if is_classifier(config):
        side = config['val_dataloader']['dataset']['transform']['input_size']
        return side, side
    divisor = preprocessor.get('pad_size_divisor', 1)
    for part in ('val', 'train'):
        for dataset in datasets_of(config.get(f'{part}_dataloader') or {}):
            for transform in dataset.get('pipeline', ()):
                scale = resize_scale(transform) if transform.get('type') == 'Resize' else None
                if scale is not None:
                    height, width = (-(-side // divisor) * divisor for side in sorted(scale))
                    return height, width
    return None


def _weights(config: Mapping[str, Any]) -> str:
    if config.get('load_from'):
        return f'{"resumed from " if config.get("resume") else ""}{config["load_from"]}'
    start = (config['model'].get('backbone') or {}).get('init_cfg') or {}
    if isinstance(start, Mapping) and start.get('checkpoint'):
        return f'backbone from {start["checkpoint"]}'
    return 'random'


def _device(runner: Runner) -> str:
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f'CPU, {_count(torch.get_num_threads(), "thread")}'
    return f'{get_world_size()} processes, each on {device}' if runner.distributed else device


def _busy() -> str:
    """What helps if other programs use the cores on which this one counts."""
    threads, cores = torch.get_num_threads(), len(usable_cores())
    if torch.cuda.is_available() or threads == 1 or 'OMP_WAIT_POLICY' in os.environ:
        return ''
    busy = busy_cores()
    if busy + threads < cores + 0.5:
        return ''
    return (
        f'other programs use {busy:.1f} of {_count(cores, "core")}, and threads that wait for each '
        'other slow all down: start with OMP_NUM_THREADS=1 or OMP_WAIT_POLICY=passive'
    )


def _schedule(runner: Runner) -> str:
    loop: Any = runner.train_loop
    steps = _count(len(runner.train_dataloader), 'step')
    if isinstance(loop, EpochBasedTrainLoop):
        unit, length = 'epoch', f'{_count(loop.max_epochs, "epoch")} of {steps}'
    else:
        unit, length = 'step', _count(loop.max_iters, 'step')
    each = runner.train_dataloader.batch_size  # None if batches differ
    images = _count(each * get_world_size(), 'image') if each else 'as many images as fit its size'
    text = f'{length} with {images} each'
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    if optimizer is not None:
        rates = sorted({group.get('initial_lr', group['lr']) for group in optimizer.param_groups})
        text += f', {type(optimizer).__name__} with learning rate {rates[-1]:g}'
        text += f' (lowest {rates[0]:g})' if len(rates) > 1 else ''
    if runner.val_loop is not None:
        text += f', validated every {_count(loop.val_interval, unit).removeprefix("1 ")}'
    return text


def _count(number: int, unit: str) -> str:
    return f'{number} {unit}{"s" if number != 1 else ""}'
