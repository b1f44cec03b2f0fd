"""The learning rate of the papers' classifiers: warm-up, then a cosine."""

from __future__ import annotations

import math
from typing import Any

from mmengine.optim import _ParamScheduler

from lightvit_mm.registry import PARAM_SCHEDULERS

__all__ = ['WarmupCosineLR']


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(_ParamScheduler):
    """A linear warm-up that replaces the beginning of a cosine, as timm's ``CosineLRScheduler``.

    mmengine's own schedulers multiply each other, so that a warm-up and a cosine to a rate above 0
    do not give these values. The config needs ``convert_to_iter_based=True``.

    Args:
        optimizer: the optimizer or its wrapper.
        epochs: length of the cosine; after it, the rate is ``eta_min``.
        epoch_length: steps of an epoch; mmengine gives it.
        eta_min: lowest rate; unlike the optimizer's rate, it does not scale with the batch.
        warmup_lr: rate of the first step; it does not scale either.
        warmup_epochs: length of the warm-up.
        warmup_steps: its length in steps instead, beside a cosine per epoch, as in ml-cvnets.
        every: ``'epoch'`` or ``'step'``, after which the rate changes.
        delay: how many of these the schedule lags behind. DeiT's code tells the scheduler the
            number of the epoch that has just ended, and Swin's that of the step: 1.
    """

    def __init__(
        self,
        optimizer: Any,
        epochs: int,
        epoch_length: int,
        eta_min: float = 0.0,
        warmup_lr: float = 0.0,
        warmup_epochs: int = 0,
        warmup_steps: int = 0,
        every: str = 'epoch',
        delay: int = 0,
        **common: Any,
    ) -> None:
        self.epochs = epochs
        self.epoch_length = epoch_length
        self.eta_min = eta_min
        self.warmup_lr = warmup_lr
        self.warmup_epochs = warmup_epochs
        self.warmup_steps = warmup_steps
        self.every = every
        self.delay = delay
        super().__init__(optimizer, 'lr', by_epoch=False, **common)

    @classmethod
    def build_iter_from_epoch(cls, end: int, epoch_length: int, **options: Any) -> WarmupCosineLR:
        """Build the scheduler; mmengine calls it with the end in epochs."""
        return cls(end=end * epoch_length, epoch_length=epoch_length, **options)

    def _get_value(self) -> list[float]:
        return [self._rate(base) for base in self.base_values]

    def _rate(self, base: float) -> float:
        step = max(self.last_step, 0)
        unit = self.epoch_length if self.every == 'epoch' else 1
        done = max(step // unit - self.delay, 0) * unit
        warmup = self.warmup_epochs * self.epoch_length
        if self.warmup_steps and step < self.warmup_steps:
            done, warmup = step, self.warmup_steps
        if done < warmup:
            return self.warmup_lr + (base - self.warmup_lr) * done / warmup
        share = min(done / (self.epochs * self.epoch_length), 1.0)
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * share)) / 2
