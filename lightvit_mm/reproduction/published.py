"""The published results and their recipes, from ``configs/published.yml``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from lightvit_mm.checkpoints.weights import Weights, named_weights
from lightvit_mm.errors import UserError

# Number of GPUs, the same in every recipe.
PROCESSES = 8
# For COCO, only images with objects are counted.
TRAIN_IMAGES = {'coco': 117_266, 'ade20k': 20_210, 'voc12aug': 10_582}


@dataclass(frozen=True)
class Recipe:
    """How a published result was trained; ``batch`` is the total over all processes.

    Detectors are trained for ``epochs``, segmentors for ``iterations``. The learning rate drops
    tenfold at each of ``steps`` (epochs), or falls polynomially, or follows a cosine after the
    warm-up. ``decay_mult`` scales the weight decay of parameters whose names contain the key.
    """

    source: str
    optimizer: str
    lr: float
    weight_decay: float
    batch: int
    norm_eval: bool
    decay_mult: dict[str, float] = field(default_factory=dict)
    epochs: int | None = None
    steps: list[int] = field(default_factory=list)
    warmup_iterations: int = 0
    warmup_start: float = 1.0
    iterations: int | None = None
    poly_power: float | None = None
    poly_min_lr: float | None = None
    cosine_min_lr: float | None = None

    def learning_rate(self, iteration: int, iterations_per_epoch: int) -> float:
        """Learning rate of an iteration, counted from 0, as mmcv 1.x or cvnets computed it."""
        total = self.iterations or (self.epochs or 0) * iterations_per_epoch
        rate = self.lr
        if self.poly_power is not None and self.poly_min_lr is not None:
            left = (1 - iteration / total) ** self.poly_power
            rate = self.poly_min_lr + (self.lr - self.poly_min_lr) * left
        elif self.cosine_min_lr is not None and iteration >= self.warmup_iterations:
            done = (iteration - self.warmup_iterations) / (total - self.warmup_iterations)
            swing = (1 + math.cos(math.pi * done)) / 2
            rate = self.cosine_min_lr + (self.lr - self.cosine_min_lr) * swing
        rate *= 0.1 ** sum(iteration >= step * iterations_per_epoch for step in self.steps)
        if iteration < self.warmup_iterations:
            done = iteration / self.warmup_iterations
            rate *= self.warmup_start + (1 - self.warmup_start) * done
        return rate


@dataclass(frozen=True)
class Row:
    """One published result and the config to reproduce it.

    Attributes:
        config: name of the config, without ``.py``.
        published: values by metric, in percent.
        source: where the figures were published.
        confidence: ``'read'`` in the source, or ``'recalled'`` without verification.
        recipe: how it was trained.
        init: name of the backbone's pretrained weights, as in docs/weights.md.
        parameters_M: parameters in millions, ``published`` or ``computed`` or both.
        gmacs: ``published`` GMACs, at ``input`` (height, width).
        third_party: whether it was published by others than the model's authors.
        released: URL of the trained model; None if its authors released none.
        obstacle: why the row cannot be reproduced as it is.
        explained: reasons for differences from the recipe, by part of the check.
        notes: other remarks.
        curves: loss, lr and metrics by iteration, from a released log.
    """

    config: str
    published: dict[str, float]
    source: str
    confidence: str
    recipe: Recipe
    init: str
    parameters_M: dict[str, float] = field(default_factory=dict)
    gmacs: dict[str, Any] = field(default_factory=dict)
    third_party: bool = False
    released: str | None = None
    obstacle: str | None = None
    explained: dict[str, str] = field(default_factory=dict)
    notes: str | None = None
    curves: dict[str, dict[int, float]] = field(default_factory=dict)

    @property
    def weights(self) -> Weights:
        """The pretrained weights."""
        return named_weights(self.init)

    @property
    def dataset(self) -> str:
        """The data set, from the end of the config's name."""
        return self.config.rsplit('_', 1)[1]

    @property
    def epoch_length(self) -> int:
        """Iterations per epoch of the published training."""
        return -(-TRAIN_IMAGES[self.dataset] // self.recipe.batch)

    @property
    def iterations(self) -> int:
        """Iterations of the published training."""
        return self.recipe.iterations or (self.recipe.epochs or 0) * self.epoch_length


def read_published(path: str | Path, *patterns: str) -> list[Row]:
    """Read the rows whose config matches one of the shell-style patterns; all without patterns.

    Raises:
        UserError: the file is no list of rows, or a pattern matches none.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
        recipes = {name: Recipe(**fields) for name, fields in content['recipes'].items()}
        rows = [
            Row(
                **{
                    **fields,
                    'recipe': recipes[fields['recipe']],
                    'curves': content['curves'].get(fields['config'], {}),
                }
            )
            for fields in content['rows']
        ]
    except (AttributeError, LookupError, TypeError, ValueError, yaml.YAMLError) as error:
        raise UserError(
            f'{path} is not a list of published rows like configs/published.yml: '
            f'{type(error).__name__}: {error}'
        ) from error
    for pattern in patterns:
        if not any(fnmatch(row.config, pattern) for row in rows):
            known = '\n  '.join(row.config for row in rows)
            raise UserError(f'no published row matches {pattern!r}; there are\n  {known}')
    return [
        row
        for row in rows
        if not patterns or any(fnmatch(row.config, pattern) for pattern in patterns)
    ]
