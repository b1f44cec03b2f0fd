"""The learning rates that a config results in."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterable
from typing import Any

from mmengine.config import Config
from mmengine.hooks import ParamSchedulerHook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from lightvit_mm.engine.param_groups import merge_equal_groups


def build_runner(config: Config, iterations_per_epoch: int) -> Runner:
    """Build a runner that is ready to train, but on empty data.

    Its model, optimizer and schedulers are built as for training; nothing is loaded or run.

    Args:
        config: config of the model, from `load_config`.
        iterations_per_epoch: length of the dataloader.
    """
    config = config.copy()
    with tempfile.TemporaryDirectory() as work_dir:
        config.work_dir = work_dir
        config.log_level = 'ERROR'
        # mmengine gives a second runner with the same name the scope of the first.
        config.experiment_name = f'schedule {uuid.uuid4()}'
        config.visualizer = {'type': 'Visualizer', 'vis_backends': None}
        for part in ('val_cfg', 'val_dataloader', 'val_evaluator'):
            config[part] = None
        for part in ('test_cfg', 'test_dataloader', 'test_evaluator'):
            config[part] = None
        runner = Runner.from_cfg(config)
        content: Any = range(iterations_per_epoch)
        runner._train_dataloader = DataLoader(content)
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        optimizer = runner.optim_wrapper.optimizer
        optimizer.param_groups[:] = merge_equal_groups(optimizer.param_groups)
        runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    return runner


def learning_rates(runner: Runner, at: Iterable[int]) -> dict[int, float]:
    """Learning rates of the optimizer steps at iterations ``at``, counted from 0.

    This advances the runner's schedulers to the last of them.
    """
    wanted = sorted(set(at))
    hook = ParamSchedulerHook()
    epoch_length = len(runner.train_dataloader)
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    rates: dict[int, float] = {}
    for iteration in range(wanted[-1] + 1):
        if iteration in wanted:
            rates[iteration] = _rate(runner)
        hook.after_train_iter(runner, iteration)
        if by_epoch and (iteration + 1) % epoch_length == 0:
            hook.after_train_epoch(runner)
    return rates


def _rate(runner: Runner) -> float:
    rates = runner.optim_wrapper.get_lr()
    # If parameter groups have lr_mult factors, base_lr is the rate without them.
    different: set[Any] = set(rates.get('base_lr', rates['lr']))
    if len(different) != 1:
        raise ValueError(f'the parameter groups have several learning rates: {sorted(different)}')
    return float(different.pop())
