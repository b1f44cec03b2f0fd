"""Hooks that keep a long training from losing its progress."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import worker_init_fn
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner, set_random_seed

from lightvit_mm.engine.whole_files import latest_checkpoint
from lightvit_mm.errors import UserError
from lightvit_mm.registry import HOOKS

# GradScaler starts at 2**16 and halves at each step it skips, so sixteen skips in a row reduce the
# scale to 1. If more are needed, the scale is not the problem.
AMP_SKIPS = 20


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, changed so that there is always a whole checkpoint.

    An old checkpoint is removed after the new one is written. mmengine removes it before, so with
    ``max_keep_ckpts=1`` or ``save_best`` a full disk or a kill in between leaves none. A run that
    resumes automatically (``resume=True`` without ``load_from``) continues from the last whole
    checkpoint, which need not be the one named in ``last_checkpoint``.
    """

    file_backend: Any

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint of an automatic resume.

        Raises:
            UserError: there are checkpoints, but none is whole.
        """
        if runner._resume is not True or runner._load_from is not None:
            return
        runner._load_from = latest_checkpoint(runner.work_dir)
        if runner._load_from is None and (Path(runner.work_dir) / 'last_checkpoint').exists():
            raise UserError(
                f'no checkpoint in {runner.work_dir} is whole; start over without resume=True, or '
                'name a checkpoint in load_from'
            )

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        with self._removing_afterwards():
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        keys = self.key_indicators if self.save_best else ()
        unknown = [key for key in keys if key not in ('auto', *metrics)]
        if metrics and unknown:
            raise UserError(
                f'default_hooks.checkpoint.save_best: {unknown[0]} is not a metric of this '
                f'evaluation, which has {", ".join(metrics)}'
            )
        with self._removing_afterwards():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removing_afterwards(self) -> Iterator[None]:
        backend = self.file_backend
        self.file_backend = late = _LateRemoval(backend)
        try:
            yield
        finally:
            self.file_backend = backend
        for remove, path in late.removals:
            remove(path)


class _LateRemoval:
    """A file backend that records removals instead of carrying them out."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.removals: list[tuple[Any, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.removals.append((self.backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.removals.append((self.backend.rmtree, path))


@HOOKS.register_module()
class StepSeedHook(Hook):
    """Makes the random numbers of a training step depend only on the seed and the step.

    mmengine does not save the state of the random generators, so a resumed run draws other
    dropouts, drop paths, samples and augmentations than an uninterrupted one. With this hook both
    draw the same: in iteration-based loops with worker processes from every checkpoint, in
    epoch-based loops from the end of an epoch, with ``persistent_workers=False`` or no workers.
    Persistent workers keep their state across epochs, and it cannot be restored.
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this process, and its data workers if they start with the epoch."""
        seed = _seed(runner.seed, 0, runner.epoch)
        set_random_seed(seed)
        loader = runner.train_dataloader
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and not loader.persistent_workers:
            # By default mmengine seeds the workers of every epoch alike: the same flips each time.
            loader.worker_init_fn = partial(
                worker_init_fn, num_workers=loader.num_workers, rank=get_rank(), seed=seed
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed this process."""
        set_random_seed(_seed(runner.seed, 1, runner.iter))


def _seed(*words: int) -> int:
    # Below 2**31, since mmengine adds the worker's number to it.
    return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a training whose loss is not finite, and reports the step and its images.

    It reads the loss, and the gradient norm if the config clips gradients, from the message hub,
    where mmengine's RuntimeInfoHook has just stored them as Python numbers for the log. The hook
    therefore causes no extra synchronisation with a GPU.

    A GradScaler skips steps with infinite gradients by design; with one, the run stops after more
    than `AMP_SKIPS` skipped steps in a row.
    """

    # After RuntimeInfoHook, and before CheckpointHook saves broken weights.
    priority = 'HIGH'

    def before_train(self, runner: Runner) -> None:
        """Reset the state of an earlier run."""
        self._skipped = 0
        self._files_before: list[str] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Check the loss and the gradient norm of this step.

        Raises:
            UserError: one of them is not finite; the message gives the iteration, the images of
                the batch and the last good checkpoint.
        """
        files = _image_files(data_batch)
        if _is_finite(runner, 'loss') and _is_finite(runner, 'grad_norm'):
            self._skipped = 0
        else:
            self._skipped += 1
            scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
            if scaler is None or not scaler.is_enabled() or self._skipped > AMP_SKIPS:
                raise UserError(self._report(runner, outputs or {}, files))
            if self._skipped == 1:
                runner.logger.log(
                    logging.WARNING,
                    f'iteration {runner.iter + 1}: infinite or undefined loss or gradients; the '
                    'loss scaler skips the step',
                )
        self._files_before = files

    def _report(self, runner: Runner, outputs: dict, files: Sequence[str]) -> str:
        names = [*outputs, 'grad_norm']
        numbers = ', '.join(
            f'{name} {_current(runner, name):.4g}'
            for name in names
            if f'train/{name}' in runner.message_hub.log_scalars
        )
        where = f'iteration {runner.iter + 1}'
        if get_world_size() > 1:
            where += f', process {get_rank()}'
        if self._skipped > 1:
            where += f' after {self._skipped - 1} skipped steps in a row'
        checkpoint = latest_checkpoint(runner.work_dir, finite=True)
        go_on = (
            f'last good checkpoint: {checkpoint}'
            if checkpoint
            else f'no good checkpoint was saved in {runner.work_dir}'
        )
        return (
            f'training stopped at {where}: {numbers}\n'
            f'images of this batch: {", ".join(files) or "unnamed"}\n'
            'images of the batch before, whose step may have broken the weights: '
            f'{", ".join(self._files_before) or "none"}\n'
            f'{go_on}\n'
            'Check these images and their annotations; then try a lower learning rate, a longer '
            'warm-up or optim_wrapper.clip_grad (with --amp, also a run without it)'
        )


def _current(runner: Runner, name: str) -> float:
    return runner.message_hub.get_scalar(f'train/{name}').current()


def _is_finite(runner: Runner, name: str) -> bool:
    known = f'train/{name}' in runner.message_hub.log_scalars
    return not known or math.isfinite(_current(runner, name))


def _image_files(data_batch: Any) -> list[str]:
    samples = data_batch.get('data_samples', []) if isinstance(data_batch, dict) else []
    return [str(getattr(sample, 'img_path', 'unnamed')) for sample in samples]
