"""A training of seconds through mmengine's own Runner, with everything in it that is random."""

import random
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from torch.utils.data import Dataset

import lightvit_mm  # noqa: F401

# How long torch waits for each worker of a data loader that was left in the middle.
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.2


@DATASETS.register_module()
class ToyData(Dataset):
    """Twelve vectors under names of images, with noise of all three random generators.

    Args:
        file: one that is looked into for each of them.
        noise: its share.
    """

    def __init__(self, file: str | None = None, noise: float = 0.1) -> None:
        self.file, self.noise = file, noise

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict:
        if self.file:
            Path(self.file).read_bytes()
        values = torch.arange(8.0) * (index + 1) / 48
        noise = torch.randn(8) + random.gauss(0, 1) + np.random.normal(size=8).astype('float32')
        return {
            'inputs': values + self.noise * noise,
            'data_samples': SimpleNamespace(img_path=f'images/{index:02}.png'),
        }


@MODELS.register_module()
class ToyModel(BaseModel):
    """Two layers with BatchNorm and dropout.

    Args:
        width: of the hidden layer; checkpoints hold about 8 * width**2 numbers.
        undefined_from: from this call on the loss is not a number.
    """

    def __init__(self, width: int = 16, undefined_from: int | None = None) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(8, width),
            torch.nn.BatchNorm1d(width),
            torch.nn.Linear(width, width),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(width, 1),
        )
        self.calls, self.undefined_from = 0, undefined_from

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        inputs = torch.stack(list(inputs))
        outputs = self.layers(inputs)
        if mode != 'loss':
            return outputs
        self.calls += 1
        loss = (outputs - inputs.mean(1, keepdim=True)).square().mean()
        if self.undefined_from is not None and self.calls >= self.undefined_from:
            loss = loss * float('nan')
        return {'loss': loss}


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """The mean output, after drawing random numbers as a metric may."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        torch.rand(1), np.random.rand(), random.random()
        self.results.append(float(torch.stack(list(data_samples)).mean()))

    def compute_metrics(self, results: list) -> dict:
        return {'mean': float(np.mean(results))}


def toy_config(work_dir: Path, epochs: int = 4, workers: int = 0, **changes: Any) -> Config:
    """A config in the manner of configs/_base_/runtime_det.py; ``changes`` replace its entries."""
    loader = {
        'dataset': {'type': 'ToyData'},
        'batch_size': 4,
        'num_workers': workers,
        'sampler': {'type': 'DefaultSampler', 'shuffle': True},
    }
    config = {
        'model': {'type': 'ToyModel'},
        'work_dir': str(work_dir),
        'train_dataloader': loader,
        'val_dataloader': {**loader, 'sampler': {'type': 'DefaultSampler', 'shuffle': False}},
        'val_evaluator': {'type': 'ToyMetric'},
        'train_cfg': {'by_epoch': True, 'max_epochs': epochs, 'val_interval': 1},
        'val_cfg': {},
        'optim_wrapper': {
            'optimizer': {'type': 'AdamW', 'lr': 0.01},
            'clip_grad': {'max_norm': 10.0},
        },
        'param_scheduler': {'type': 'LinearLR', 'start_factor': 0.1, 'begin': 0, 'end': epochs},
        'default_hooks': {
            'checkpoint': {'type': 'WholeCheckpointHook', 'interval': 1, 'max_keep_ckpts': 2},
            'step_seed': {'type': 'StepSeedHook'},
            'finite_loss': {'type': 'FiniteLossHook'},
        },
        'custom_hooks': [{'type': 'EMAHook'}],
        'env_cfg': {'dist_cfg': {'backend': 'gloo'}},
        'randomness': {'seed': 7},
        'launcher': 'none',
        'log_level': 'WARNING',
        'default_scope': 'mmengine',
        'experiment_name': f'{work_dir} {random.Random().random()}',
    }
    return Config({**config, **changes})


class Killed(BaseException):
    """What ends a toy run where a signal would end a process."""


@HOOKS.register_module()
class ToyNotes(Hook):
    """Keeps the loss of every step.

    Args:
        kill_after: number of steps in this run after which it ends by `Killed`.
    """

    def __init__(self, kill_after: int | None = None) -> None:
        self.losses: list[float] = []
        self.kill_after = kill_after

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any, outputs: dict):
        self.losses.append(outputs['loss'].item())
        if len(self.losses) == self.kill_after:
            raise Killed


def run_toy(config: Config, kill_after: int | None = None) -> tuple[Runner, list[float]]:
    """Train, to the end or until killed.

    Returns:
        The runner, and the loss of every step.
    """
    notes = ToyNotes(kill_after)
    runner = Runner.from_cfg(config)
    runner.register_hook(notes, 'LOWEST')
    with suppress(Killed):
        runner.train()
    return runner, notes.losses
