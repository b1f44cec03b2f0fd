"""Parameter groups of an optimizer: merging them, showing them, checking the schedule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Column, Table
from torch import nn
from torch.optim import Optimizer

NAMES_SHOWN = 3

Group = dict[str, Any]


def param_group_table(optimizer: Optimizer, model: nn.Module) -> Table:
    """One row per pair of learning rate and weight decay, and a last one for frozen parameters.

    Args:
        optimizer: optimizer of the training.
        model: model that it updates, for the names of the parameters.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    rows: dict[tuple[Any, Any], list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        rows.setdefault((group['lr'], group.get('weight_decay')), []).extend(group['params'])
    table = Table('lr', 'weight decay', 'tensors', 'parameters', Column('names', overflow='fold'))
    for (lr, weight_decay), parameters in sorted(rows.items(), key=lambda row: row[0][0]):
        decay = '' if weight_decay is None else f'{weight_decay:.4g}'
        table.add_row(f'{lr:.4g}', decay, *_content(parameters, names))
    updated = {parameter for parameters in rows.values() for parameter in parameters}
    frozen = [parameter for parameter in names if parameter not in updated]
    if frozen:
        table.add_row('frozen', '', *_content(frozen, names))
    return table


def rising_groups(optimizer: Optimizer, schedulers: Iterable[Mapping[str, Any]]) -> str | None:
    """A warning if the schedule ends above the initial learning rate of a group, else None.

    mmengine uses the same ``eta_min`` for every group, however small its learning rate.
    """
    floor = max((scheduler.get('eta_min') or 0.0 for scheduler in schedulers), default=0.0)
    lrs = [group['lr'] for group in optimizer.param_groups]
    rising = [lr for lr in lrs if lr < floor]
    if not rising:
        return None
    return (
        f'the schedule raises the learning rate of {len(rising)} of {len(lrs)} groups '
        f'(the smallest is {min(rising):.4g}) to eta_min={floor:.4g}; '
        'for CosineAnnealingLR set eta_min_ratio instead, for PolyLR eta_min=0'
    )


def merge_equal_groups(groups: Iterable[Group]) -> list[Group]:
    """Merge groups that differ only in their parameters.

    With settings by parameter name, mmengine makes one group per parameter: hundreds of groups,
    which slow down every step of the optimizer and the schedule. A group that repeats a parameter
    stays separate, so that torch raises an error; within one group torch only warns.
    """
    merged: dict[str, Group] = {}
    repeated = []
    seen: set[Any] = set()
    for group in groups:
        if not seen.isdisjoint(group['params']):
            repeated.append(group)
            continue
        seen.update(group['params'])
        settings = {key: value for key, value in group.items() if key != 'params'}
        key = repr(sorted(settings.items()))
        merged.setdefault(key, {'params': [], **settings})['params'].extend(group['params'])
    return [*merged.values(), *repeated]


def _content(
    parameters: list[nn.Parameter], names: dict[nn.Parameter, str]
) -> tuple[str, str, str]:
    """Number of tensors, number of parameters, and the first few names."""
    shown = [names[parameter] for parameter in parameters[:NAMES_SHOWN]]
    more = ['...'] if len(parameters) > NAMES_SHOWN else []
    count = sum(parameter.numel() for parameter in parameters)
    return str(len(parameters)), f'{count:,}', '\n'.join(shown + more)
