"""Progress of a training: a line in the terminal, and TensorBoard."""

from __future__ import annotations

import importlib.util
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lightvit_mm.errors import UserError

PERIOD = 0.2  # seconds between redraws of the line


def use_tensorboard(config: Any) -> None:
    """Make a config write its logs for TensorBoard as well, in place.

    Raises:
        UserError: TensorBoard is not installed.
    """
    if importlib.util.find_spec('tensorboard') is None:
        raise UserError('--tensorboard: the package is not installed; pip install tensorboard')
    visualizer = config.get('visualizer') or {'type': 'Visualizer'}
    backends = [dict(backend) for backend in visualizer.get('vis_backends') or ()]
    kinds = [backend['type'] for backend in backends]
    for kind in ('LocalVisBackend', 'TensorboardVisBackend'):
        if kind not in kinds:
            backends.append({'type': kind})
    config['visualizer'] = {**visualizer, 'vis_backends': backends}


class ProgressHook(Hook):
    """Updates the line of `progress_line`.

    Args:
        progress: rich display that draws the line.
    """

    # After RuntimeInfoHook, which provides the loss of the step.
    priority = 'LOW'

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._drawn = 0.0
        self._training: TaskID | None = None
        self._validation: TaskID | None = None

    def before_train(self, runner: Runner) -> None:
        """Start the bar at the iteration that the run starts or resumes from."""
        self._training = self._progress.add_task(
            'training', total=runner.max_iters, completed=runner.iter, loss=''
        )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance the training bar by one step and show the loss."""
        assert self._training is not None
        loss = runner.message_hub.get_scalar('train/loss').current()
        self._progress.update(self._training, advance=1, loss=f'loss {loss:.4f}')
        self._draw()

    def before_val_epoch(self, runner: Runner) -> None:
        """Show the validation bar in place of the training bar."""
        if self._training is not None:
            self._progress.update(self._training, visible=False)
        total = len(runner.val_dataloader)
        self._validation = self._progress.add_task('validating', total=total, loss='')

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance the validation bar by one batch."""
        assert self._validation is not None
        self._progress.advance(self._validation)
        self._draw()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Show the training bar again."""
        assert self._validation is not None
        self._progress.remove_task(self._validation)
        if self._training is not None:
            self._progress.update(self._training, visible=True)

    def _draw(self) -> None:
        now = time.monotonic()
        if now - self._drawn > PERIOD:
            self._progress.refresh()
            self._drawn = now


@contextmanager
def progress_line(runner: Runner) -> Iterator[None]:
    """Show progress and remaining time of a training in one line of the terminal.

    The lines that mmengine logs every few iterations then appear only in the log file. If the
    output is not a terminal, e.g. a pipe, nothing changes.
    """
    console = Console()
    # rich treats a pipe as a terminal if FORCE_COLOR is set.
    is_terminal = sys.stdout.isatty() and console.is_terminal and not console.is_dumb_terminal
    if not is_terminal or runner.rank != 0:
        yield
        return
    columns = (
        TextColumn('{task.description}'),
        BarColumn(None),
        MofNCompleteColumn(),
        TextColumn('{task.fields[loss]}'),
        TimeElapsedColumn(),
        TextColumn('remaining'),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    handlers = [
        handler for handler in runner.logger.handlers if type(handler) is logging.StreamHandler
    ]
    streams = [handler.stream for handler in handlers]
    # A drawing thread could hold rich's lock at the moment the data workers are forked.
    with Progress(*columns, console=console, expand=True, auto_refresh=False) as progress:
        runner.register_hook(ProgressHook(progress))
        for handler in handlers:
            # rich has replaced sys.stdout, so that log lines appear above the progress line.
            handler.setStream(sys.stdout)
            handler.addFilter(_is_no_progress)
        try:
            yield
        finally:
            for handler, stream in zip(handlers, streams, strict=True):
                handler.removeFilter(_is_no_progress)
                handler.setStream(stream)


def _is_no_progress(record: logging.LogRecord) -> bool:
    """Whether a log record is not one of LoggerHook's lines within an epoch."""
    every_few = ('after_train_iter', 'after_val_iter')
    return not (record.module == 'logger_hook' and record.funcName in every_few)
