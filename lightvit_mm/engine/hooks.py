"""Hooks that keep a long training from losing what it has."""

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
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner, set_random_seed

from lightvit_mm.engine.whole_files import latest_checkpoint
from lightvit_mm.errors import UserError

# GradScaler begins at 2**16 and halves at each step that it skips: a scale too large is put right
# in sixteen of them. More in a row, and it is not the scale.
AMP_SKIPS = 20


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook that always leaves a whole checkpoint behind.

    An old checkpoint is removed after the new one is written, not before: with
    ``max_keep_ckpts=1`` or ``save_best`` a full disk or a kill in between would else leave none.
    A run that resumes by itself (``resume=True`` without ``load_from``) goes on from the last
    checkpoint that is whole, not from the one that ``last_checkpoint`` happens to name.
    """

    file_backend: Any

    def before_run(self, runner: Runner) -> None:
        """Choose what an automatic resume goes on from.

        Raises:
            UserError: there are checkpoints, but none is whole.
        """
        if runner._resume is not True or runner._load_from is not None:
            return
        runner._load_from = latest_checkpoint(runner.work_dir)
        if runner._load_from is None and (Path(runner.work_dir) / 'last_checkpoint').exists():
            raise UserError(
                f'no checkpoint in {runner.work_dir} is whole; start anew without resume=True, or '
                'name a checkpoint by load_from'
            )

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        with self._removing_afterwards():
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
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
    """A file backend that notes what it is to remove."""

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
    """Makes what a training step draws depend on the seed and the step alone.

    mmengine keeps no state of the random generators: a resumed run would draw other dropouts, drop
    paths, samples and augmentations than the run that it continues. With this hook it draws the
    same, from every checkpoint of an iteration-based loop with worker processes, and from the end
    of an epoch of an epoch-based loop, with ``persistent_workers=False`` or no workers. Persistent
    workers carry their state from epoch to epoch, where nothing can reach it.
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this process and, where they start with the epoch, its data workers."""
        seed = _seed(runner.seed, 0, runner.epoch)
        set_random_seed(seed)
        loader = runner.train_dataloader
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and not loader.persistent_workers:
            # mmengine's gives the workers of every epoch the same seed, and so the same flips.
            loader.worker_init_fn = partial(
                worker_init_fn, num_workers=loader.num_workers, rank=get_rank(), seed=seed
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed this process."""
        set_random_seed(_seed(runner.seed, 1, runner.iter))


def _seed(*words: int) -> int:
    # Below 2**31: mmengine adds the number of the worker to it.
    return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a training whose loss is no finite number, and says where.

    It reads the loss, and the norm of the gradients where the config clips them, from the message
    hub. mmengine's RuntimeInfoHook has just put them there as Python numbers, at every step, for
    the log; so this waits for no device that has not been waited for already.

    Under a GradScaler a step with infinite gradients is skipped by design; there the run is
    stopped after `AMP_SKIPS` such steps in a row.
    """

    # After RuntimeInfoHook, before the CheckpointHook saves what is broken.
    priority = 'HIGH'

    def before_train(self, runner: Runner) -> None:
        """Forget an earlier run."""
        self._skipped = 0
        self._files_before: list[str] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Look at the numbers of this step.

        Raises:
            UserError: one of them is infinite or undefined; says the iteration, the images of
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
            where += f', the {self._skipped}th such step in a row'
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
            'Look at these images and their annotations; then a lower learning rate, a longer '
            'warm-up or optim_wrapper.clip_grad (and with --amp, a run without it)'
        )


def _current(runner: Runner, name: str) -> float:
    return runner.message_hub.get_scalar(f'train/{name}').current()


def _is_finite(runner: Runner, name: str) -> bool:
    known = f'train/{name}' in runner.message_hub.log_scalars
    return not known or math.isfinite(_current(runner, name))


def _image_files(data_batch: Any) -> list[str]:
    samples = data_batch.get('data_samples', []) if isinstance(data_batch, dict) else []
    return [str(getattr(sample, 'img_path', 'unnamed')) for sample in samples]
