"""Checking the configs against the published recipes, without data."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from rich.table import Table
from torch import nn

from lightvit_mm.engine.configs import load_config
from lightvit_mm.measure.complexity import count_macs, count_parameters, inference_form
from lightvit_mm.reproduction.published import PROCESSES, Recipe, Row
from lightvit_mm.reproduction.schedule import build_runner, learning_rates

# Papers round, and differ in whether they count some cheap layers.
MACS_TOLERANCE = 0.02
# mmcv 1.x ended a warm-up or a decay one iteration later than mmengine.
RATE_TOLERANCE = 0.003
LOGGED_PLACES = 5


@dataclass
class Checked:
    """Result of `check_row`.

    Attributes:
        row: the row.
        parameters_M: parameters of the training form, in millions.
        gmacs: GMACs at the published input size; None if none are published.
        differences: differences by part of the check, explained or not.
    """

    row: Row
    parameters_M: float = 0.0
    gmacs: float | None = None
    differences: dict[str, str] = field(default_factory=dict)

    @property
    def unexplained(self) -> list[str]:
        """Differences that the row does not explain, and explanations without a difference."""
        problems = [
            f'{part}: {difference}'
            for part, difference in self.differences.items()
            if part not in self.row.explained
        ]
        stale = [part for part in self.row.explained if part not in self.differences]
        return problems + [f'{part}: explained in the row, but does not differ' for part in stale]


def check_row(row: Row, configs: str | Path = 'configs') -> Checked:
    """Build the model, optimizer and schedule of a row's config and compare them with the row."""
    config = load_config(str(Path(configs) / f'{row.config}.py'))
    runner = build_runner(config, row.epoch_length)
    checked = Checked(row, count_parameters(runner.model) / 1e6)
    found = {
        'parameters': _parameters(row, checked.parameters_M),
        'init': _init(row, config),
        'optimizer': _optimizer(row.recipe, runner),
        'schedule': _schedule(row, runner),
        'batch': _batch(row.recipe, config),
        'norms': _norms(row.recipe, runner.model),
    }
    if row.gmacs:
        checked.gmacs = count_macs(inference_form(runner.model), *row.gmacs['input']) / 1e9
        found['gmacs'] = _gmacs(row, checked.gmacs)
    checked.differences = {part: text for part, text in found.items() if text}
    return checked


def as_table(results: list[Checked]) -> Table:
    """The results of `check_row` for the terminal."""
    table = Table(title='Published results and the configs to reproduce them')
    table.add_column('config', no_wrap=True)
    for heading in ('published', 'parameters (M)', 'GMACs', 'recipe', 'weights', ''):
        table.add_column(heading, overflow='fold')
    for result in results:
        row, recipe = result.row, result.row.recipe
        length = f'{recipe.epochs} epochs' if recipe.epochs else f'{recipe.iterations} iterations'
        stated, computed = row.parameters_M.get('published'), row.parameters_M.get('computed')
        table.add_row(
            row.config,
            ', '.join(f'{metric} {value}' for metric, value in row.published.items())
            + (' (recalled)' if row.confidence == 'recalled' else ''),
            f'{result.parameters_M:.3f} / {stated or "-"} / {computed or "-"}',
            f'{result.gmacs:.1f} / {row.gmacs["published"]}' if result.gmacs else '-',
            f'{recipe.optimizer} {recipe.lr:g}, decay {recipe.weight_decay:g}, '
            f'batch {recipe.batch}, {length}',
            str(row.weights),
            _verdict(result),
        )
    table.caption = "parameters: here / published / computed from the authors' code"
    return table


def _verdict(result: Checked) -> str:
    if result.unexplained:
        return '[red]DIFFERS[/red]: ' + '; '.join(result.unexplained)
    explained = [f'{part}: {why}' for part, why in result.row.explained.items()]
    state = f'fits, but {result.row.obstacle}' if result.row.obstacle else 'fits'
    return '; '.join([state, *explained])


def _parameters(row: Row, measured: float) -> str:
    problems = []
    for kind, figure in row.parameters_M.items():
        places = -Decimal(str(figure)).as_tuple().exponent  # type: ignore[operator]
        if round(measured, places) != figure:
            problems.append(f'{measured:.3f} M here, {figure} M {kind}')
    return '; '.join(problems)


def _gmacs(row: Row, measured: float) -> str:
    figure = row.gmacs['published']
    if abs(measured - figure) <= MACS_TOLERANCE * figure:
        return ''
    return f'{measured:.2f} G here, {figure} G published'


def _init(row: Row, config: Config) -> str:
    checkpoint = (config.model.backbone.get('init_cfg') or {}).get('checkpoint')
    if checkpoint != row.weights.address:
        return f'{checkpoint} here, {row.weights.address} in the recipe'
    return ''


def _optimizer(recipe: Recipe, runner: Runner) -> str:
    optimizer = runner.optim_wrapper.optimizer
    problems = []
    if type(optimizer).__name__ != recipe.optimizer:
        problems.append(f'{type(optimizer).__name__} here, {recipe.optimizer} in the recipe')
    if optimizer.defaults['lr'] != recipe.lr:
        problems.append(f'lr {optimizer.defaults["lr"]} here, {recipe.lr} in the recipe')
    if tuple(optimizer.defaults['betas']) != (0.9, 0.999):
        problems.append(f'betas {optimizer.defaults["betas"]} here, 0.9 and 0.999 in the recipe')
    decays = {
        id(parameter): group['weight_decay']
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    for name, parameter in runner.model.named_parameters():
        factors = [f for key, f in recipe.decay_mult.items() if key in name]
        wanted = recipe.weight_decay * (factors[0] if factors else 1)
        if decays.get(id(parameter)) != wanted:
            decay = decays.get(id(parameter))
            problems.append(f'weight decay of {name} {decay} here, {wanted} in the recipe')
            break
    for key in recipe.decay_mult:
        if not any(key in name for name, _ in runner.model.named_parameters()):
            problems.append(f"no parameter's name contains {key}")
    if runner.optim_wrapper.clip_grad_kwargs:
        problems.append('gradients are clipped here, not in the recipe')
    return '; '.join(problems)


def _schedule(row: Row, runner: Runner) -> str:
    recipe, epoch = row.recipe, len(runner.train_dataloader)
    loop = runner.train_loop
    length = loop.max_epochs if recipe.epochs else loop.max_iters
    if length != (recipe.epochs or recipe.iterations):
        return f'trains for {length} here, {recipe.epochs or recipe.iterations} in the recipe'
    logged = row.curves.get('lr', {})
    total = length * epoch if recipe.epochs else length
    at = {0, 1, recipe.warmup_iterations // 2, recipe.warmup_iterations, total // 3, total - 1}
    at |= {step * epoch + offset for step in recipe.steps for offset in (-1, 0)}
    # The logs count iterations from 1.
    rates = learning_rates(runner, at | {iteration - 1 for iteration in logged})
    problems = [
        f'lr {rates[i]:.4g} at iteration {i} here, '
        f'{recipe.learning_rate(i, epoch):.4g} in the recipe'
        for i in sorted(at)
        if abs(rates[i] - recipe.learning_rate(i, epoch)) > RATE_TOLERANCE * recipe.lr
    ] + [
        f'lr {rates[i - 1]:.4g} at iteration {i} here, {rate} in the log'
        for i, rate in logged.items()
        if round(rates[i - 1], LOGGED_PLACES) != rate
    ]
    return '; '.join(problems[:3])


def _batch(recipe: Recipe, config: Config) -> str:
    base, own = config.auto_scale_lr.base_batch_size, config.train_dataloader.batch_size
    if base == recipe.batch == PROCESSES * own:
        return ''
    return f'{PROCESSES} x {own}, base {base} here, {recipe.batch} in the recipe'


def _norms(recipe: Recipe, model: nn.Module) -> str:
    backbone: Any = model.backbone
    if backbone.norm_eval != recipe.norm_eval or backbone.frozen_stages != -1:
        return (
            f'norm_eval={backbone.norm_eval}, frozen_stages={backbone.frozen_stages} here, '
            f'{recipe.norm_eval} and -1 in the recipe'
        )
    return ''
