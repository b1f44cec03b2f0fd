"""A runner that checks the checkpoints that it resumes or starts from."""

from __future__ import annotations

import copy
import inspect
import math
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

import torch
from mmengine.hooks import EMAHook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import CheckpointLoader, EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from lightvit_mm.checkpoints import CheckpointError
from lightvit_mm.checkpoints.layout import unwrap
from lightvit_mm.engine.broken_samples import NamingRunner
from lightvit_mm.engine.model_checks import meta_of, require_all, require_dict
from lightvit_mm.errors import UserError

# Settings of an optimizer that change its speed and not its results, or that only name something.
INCIDENTAL = ('params', 'param_names', 'foreach', 'fused', 'capturable', 'differentiable')
MAX_NAMED = 4  # settings in a message


class CheckingRunner(NamingRunner):
    """A runner that checks a checkpoint before it resumes, and compares it with the config.

    mmengine restores whatever the checkpoint has, optimizer settings and schedule included, and
    stops at what it lacks with an error of Python.
    """

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call the hooks; those that see a loaded checkpoint find its weights by their name."""
        if fn_name == 'after_load_checkpoint' and 'state_dict' not in kwargs['checkpoint']:
            weights = kwargs['checkpoint']  # a file of weights alone, in which EMAHook would fail
            weights['state_dict'] = copy.copy(weights)
        super().call_hook(fn_name, **kwargs)

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> Any:
        """Load weights, see mmengine's Runner.

        Before a new training, `warn_of_new_weights` reports the tensors that do not fit. By default
        EMAHook would stop at them.
        """
        for hook in self.hooks if not self._resume else ():
            if isinstance(hook, EMAHook):
                hook.strict_load = False
        return super().load_checkpoint(filename, *args, **kwargs)

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resume, see mmengine's Runner.

        Raises:
            UserError: the checkpoint is not that of a training of this config.
        """
        content = CheckpointLoader.load_checkpoint(filename, 'cpu', logger='silent')
        try:
            settings = _check(self, content, filename)
            super().resume(filename, *args, **kwargs)
        except UserError:
            raise
        except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError,
                TypeError, ValueError) as error:  # fmt: skip
            reason = str(error).strip().split('\n')[0]
            raise CheckpointError(
                f'{filename} cannot be resumed: {type(error).__name__}: {reason}. '
                f'{_instead(filename)}'
            ) from error
        _check_restored(self, filename)
        if settings:
            more = f'; and {len(settings) - MAX_NAMED} more' if len(settings) > MAX_NAMED else ''
            self.logger.warning(
                f'{filename}: resuming keeps the settings of the checkpoint, not those of the '
                f'config: {"; ".join(settings[:MAX_NAMED])}{more}. To use those of the config, '
                f'start a new training from these weights: --cfg-options load_from={filename}, '
                'without --resume'
            )
        _warn_of_end(self, filename)


def bare_model(runner: Runner) -> torch.nn.Module:
    """The model of a runner without the wrappers of several processes or augmentations."""
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def _instead(source: str) -> str:
    return (
        'Resume with the config of its training, or start a new training from its weights: '
        f'--cfg-options load_from={source}, without --resume'
    )


def _check(runner: Runner, content: Mapping[str, Any], source: str) -> list[str]:
    """Refuse a checkpoint of another training; list settings that differ from the config's."""
    require_all(bare_model(runner), unwrap(content), source)
    _check_state(runner, content, source)
    _check_loop(runner, content, source)
    _check_average(runner, content, source)
    return [
        *_other_optimizer_settings(runner, content['optimizer'], source),
        *_other_schedule(runner, content.get('param_schedulers'), source),
    ]


def _check_state(runner: Runner, content: Mapping[str, Any], source: str) -> None:
    """Check that everything that mmengine reads is there and has the right type."""
    needed = ['meta', 'message_hub', 'optimizer']
    needed += ['param_schedulers'] if runner.param_schedulers else []
    lacking = [name for name in needed if content.get(name) is None]
    if lacking:
        raise CheckpointError(
            f'{source} cannot be resumed: it has no {", ".join(lacking)}. It holds weights without '
            'the state of a training (as the best_*.pth do). Resume from a checkpoint that has '
            f'both, or start a new training: --cfg-options load_from={source}, without --resume'
        )
    meta = meta_of(content, source)
    for name in ('epoch', 'iter', 'seed'):
        value = meta.get(name)
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if not is_count and not (name == 'seed' and value is None):
            raise CheckpointError(
                f'{source} cannot be resumed: its meta[{name!r}] is {reprlib.repr(value)}; '
                f'expected a whole number, at least 0. {_instead(source)}'
            )
    hub = require_dict(content['message_hub'], source, 'message_hub')
    for name in ('log_scalars', 'runtime_info', 'resumed_keys'):
        require_dict(hub.get(name), source, f'message_hub.{name}')


def _check_loop(runner: Runner, content: Mapping[str, Any], source: str) -> None:
    """Refuse the checkpoint of an epoch-based run for an iteration-based one, and the reverse.

    To mmengine an iteration-based run is one epoch without an end, so its checkpoints are of epoch
    0, whose iterations are not those of one pass over the data.
    """
    epoch, info = content['meta']['epoch'], content['message_hub']['runtime_info']
    loop, epochs, iterations = runner.train_loop, info.get('max_epochs'), info.get('max_iters')
    if not isinstance(epochs, int) or not isinstance(iterations, int):
        return
    if isinstance(loop, IterBasedTrainLoop) and (epoch > 0 or epochs > 1):
        theirs, ours = 'an epoch-based', 'iterations'
    elif isinstance(loop, EpochBasedTrainLoop) and (
        epoch == 0 and epochs == 1 and iterations != len(loop.dataloader)
    ):
        theirs, ours = 'an iteration-based', 'epochs'
    else:
        return
    raise CheckpointError(
        f'{source} is the checkpoint of {theirs} training, and train_cfg of this config counts '
        f'{ours}. {_instead(source)}'
    )


def _check_average(runner: Runner, content: Mapping[str, Any], source: str) -> None:
    """Check the second copy of the weights that a run with EMAHook saves."""
    average = content.get('ema_state_dict')
    if average is None:
        return
    average = require_dict(average, source, 'ema_state_dict')
    if any(isinstance(hook, EMAHook) for hook in runner.hooks):
        weights = {str(key).removeprefix('module.'): value for key, value in average.items()}
        require_all(bare_model(runner), weights, f'ema_state_dict in {source}')
    else:
        runner.logger.warning(
            f'{source}: its training averaged the weights with EMAHook, which this config does not '
            'have; the averaged weights are trained further'
        )


def _other_optimizer_settings(runner: Runner, saved: Any, source: str) -> Iterator[str]:
    """Yield the settings of the optimizer in which the config differs from the checkpoint.

    Raises:
        CheckpointError: the optimizer in the checkpoint has other parameters.
    """
    if not isinstance(runner.optim_wrapper, OptimWrapper):
        return  # several optimizers
    optimizer = runner.optim_wrapper.optimizer
    groups = require_dict(saved, source, 'optimizer').get('param_groups')
    state = require_dict(saved.get('state'), source, 'optimizer.state')
    if not isinstance(groups, list) or not all(
        isinstance(group, Mapping) and isinstance(group.get('params'), list) for group in groups
    ):
        raise CheckpointError(f'{source} is damaged: optimizer.param_groups is no list of groups')
    theirs, ours = (
        [len(group['params']) for group in some] for some in (groups, optimizer.param_groups)
    )
    tensors = [tensor for group in optimizer.param_groups for tensor in group['params']]
    numbers = [number for group in groups for number in group['params']]
    if theirs != ours or any(
        value.ndim == tensor.ndim and value.shape != tensor.shape
        for number, tensor in zip(numbers, tensors, strict=True)
        for value in require_dict(state.get(number, {}), source, 'optimizer.state').values()
        if isinstance(value, torch.Tensor) and value.ndim
    ):
        raise CheckpointError(
            f'{source} cannot be resumed: the groups of its optimizer have {reprlib.repr(theirs)} '
            f'parameters, those of this config {reprlib.repr(ours)}, or parameters of other '
            f'shapes; model, frozen_stages and paramwise_cfg must be the same. {_instead(source)}'
        )
    for name in optimizer.param_groups[0]:
        pairs = [
            (old[name], new[name])
            for old, new in zip(groups, optimizer.param_groups, strict=True)
            if name in old and name in new and name not in INCIDENTAL
        ]
        for value, expected in pairs:
            if isinstance(expected, Real) and not (_is_number(value) and math.isfinite(value)):
                raise CheckpointError(
                    f'{source} is damaged: {name} of its optimizer is {reprlib.repr(value)}; '
                    'expected a finite number'
                )
        if f'initial_{name}' in groups[0]:  # changes with the schedule
            continue
        pairs = [(old, new) for old, new in pairs if not _same(old, new)]
        if pairs:
            where = f' in {len(pairs)} of {len(groups)} groups' if len(groups) > 1 else ''
            yield f'{name.removeprefix("initial_")} {_difference(*pairs[0])}{where}'


def _other_schedule(runner: Runner, saved: Any, source: str) -> Iterator[str]:
    """Yield the settings of the schedule in which the config differs from the checkpoint.

    Raises:
        CheckpointError: the schedulers in the checkpoint are of other kinds.
    """
    schedulers = runner.param_schedulers or []
    if not isinstance(schedulers, list):
        return  # of several optimizers
    states = saved if isinstance(saved, list) else []
    if len(states) != len(schedulers):
        raise CheckpointError(
            f'{source} cannot be resumed: it has the state of {len(states)} schedulers, and '
            f'param_scheduler of this config has {len(schedulers)}. {_instead(source)}'
        )
    for number, (old, scheduler) in enumerate(zip(states, schedulers, strict=True)):
        old, new = require_dict(old, source, 'param_schedulers'), scheduler.state_dict()
        if others := sorted((old.keys() ^ new.keys()) - {'verbose'}):
            raise CheckpointError(
                f'{source} cannot be resumed: param_scheduler.{number} is of another kind than '
                f'{type(scheduler).__name__} (only one of them has '
                f'{", ".join(map(str, others[:MAX_NAMED]))}). {_instead(source)}'
            )
        for name in sorted(_arguments(scheduler) & old.keys()):
            if not _same(old[name], new[name]):
                yield f'param_scheduler.{number}.{name} {_difference(old[name], new[name])}'


def _arguments(scheduler: Any) -> set[str]:
    """Names of the arguments of a scheduler, those of its base classes included."""
    classes = type(scheduler).__mro__[:-1]
    names = {name for kind in classes for name in inspect.signature(kind).parameters}
    return names - {'last_step'}


def _check_restored(runner: Runner, source: str) -> None:
    """Check that the optimizer has all its settings after it has taken those of a checkpoint."""
    if not isinstance(runner.optim_wrapper, OptimWrapper):
        return
    optimizer = runner.optim_wrapper.optimizer
    lacking = sorted(optimizer.defaults.keys() - optimizer.param_groups[0].keys())
    if lacking:
        raise CheckpointError(
            f'{source} cannot be resumed: its optimizer has no {", ".join(lacking)}, which '
            f'{type(optimizer).__name__} needs; it is another one. {_instead(source)}'
        )


def _warn_of_end(runner: Runner, source: str) -> None:
    loop = runner.train_loop
    unit, done, most = 'epoch', loop.epoch, loop.max_epochs
    if isinstance(loop, IterBasedTrainLoop):
        unit, done, most = 'iter', loop.iter, loop.max_iters
    if done >= most:
        runner.logger.warning(
            f'{source}: the training is complete ({unit} {done} of {most}), so nothing is left to '
            f'do. To train longer, raise train_cfg.max_{unit}s, and adapt param_scheduler'
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) or (isinstance(value, torch.Tensor) and value.numel() == 1)


def _same(old: Any, new: Any) -> bool:
    if _is_number(old) and _is_number(new):
        return math.isclose(old, new)
    as_lists = (list(v) if isinstance(v, (list, tuple)) else v for v in (old, new))
    return bool(next(as_lists) == next(as_lists))


def _difference(old: Any, new: Any) -> str:
    """Two values of a setting, for a message."""
    texts = [f'{v:g}' if isinstance(v, float) else reprlib.repr(_plain(v)) for v in (old, new)]
    return f'{texts[0]} (config: {texts[1]})'


def _plain(value: Any) -> Any:
    return sorted(value.elements()) if isinstance(value, Counter) else value  # milestones
