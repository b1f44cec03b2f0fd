"""Checks, before a run, that the parts of a model and its checkpoint fit together."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import nn

from lightvit_mm.backbones import PyramidBackbone
from lightvit_mm.checkpoints.layout import WeightsError, unwrap
from lightvit_mm.errors import ConfigError

MAX_NAMED = 8  # tensors per warning; a Mask R-CNN has six in its last layers


class Misfit(NamedTuple):
    """A tensor of a model that cannot be loaded from a checkpoint.

    Attributes:
        name: name of the tensor in the model.
        theirs: shape in the checkpoint, None if it is missing there.
        ours: shape in the model.
    """

    name: str
    theirs: tuple[int, ...] | None
    ours: tuple[int, ...]

    def __str__(self) -> str:
        theirs = 'missing' if self.theirs is None else self.theirs
        return f'{self.name}: {theirs} in the file, {self.ours} here'


def check_channels(model: nn.Module, config: Mapping[str, Any]) -> None:
    """Check the input channels of neck and heads, where the config states them.

    Args:
        model: detector or segmentor; skipped if its backbone is not a `PyramidBackbone`.
        config: config that the model was built from.

    Raises:
        ConfigError: the neck or a head expects other channels, or a level that does not exist.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, PyramidBackbone):
        return
    levels = list(backbone.out_channels)
    source = f'{backbone.describe()} with out_indices={backbone.out_indices}'
    neck = config.get('neck')
    if neck:
        first, last = (neck[0], neck[-1]) if isinstance(neck, (list, tuple)) else (neck, neck)
        wanted = first.get('in_channels')
        if wanted is not None and _listed(wanted) != levels:
            raise ConfigError(
                f'model.neck.in_channels is {_listed(wanted)}, but {source} gives {levels}. Set '
                f'model.neck.in_channels={levels}, or other out_indices'
            )
        if not isinstance(last.get('out_channels'), int) or 'num_outs' not in last:
            return
        levels = [last['out_channels']] * last['num_outs']
        source = f'model.neck ({last["type"]})'
    for name in ('decode_head', 'auxiliary_head'):
        for head in _listed(config.get(name) or []):
            _check_head(f'model.{name}', head, levels, source)
    for name in ('bbox_head', 'rpn_head') if neck else ():
        head = config.get(name) or {}
        if isinstance(head.get('in_channels'), int) and head['in_channels'] not in levels:
            raise ConfigError(
                f'model.{name}.in_channels is {head["in_channels"]}, but {source} gives {levels[0]}'
            )


def _check_head(name: str, head: Mapping[str, Any], levels: list[int], source: str) -> None:
    if 'in_channels' not in head:
        return
    pairs = zip(_listed(head.get('in_index', -1)), _listed(head['in_channels']), strict=False)
    for index, channels in pairs:
        if not -len(levels) <= index < len(levels):
            raise ConfigError(
                f'{name}.in_index asks for level {index}, but {source} has {len(levels)} levels '
                f'(0 to {len(levels) - 1})'
            )
        if levels[index] != channels:
            raise ConfigError(
                f'{name}.in_channels expects {channels} channels of level {index}, but {source} '
                f'gives {levels[index]} (all levels: {levels})'
            )


def require_whole(model: nn.Module, checkpoint: str) -> None:
    """Refuse a checkpoint that lacks part of the model, for evaluation or resuming.

    mmengine loads what fits and warns about the rest, which is right only before a new training.
    The backbones check their own weights.

    Args:
        model: detector or segmentor.
        checkpoint: file or address that its weights come from.

    Raises:
        WeightsError: a tensor of the neck or a head is missing or has another shape.
    """
    content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')
    misfits = [str(misfit) for misfit in _misfits(model, content)]
    if misfits:
        raise WeightsError(
            f'{checkpoint} is not the checkpoint of a whole model of this config: {len(misfits)} '
            f'tensors do not fit ({"; ".join(misfits[:3])}{"; …" if len(misfits) > 3 else ""}). '
            'Use the config that it was trained with'
        )


def warn_of_new_weights(model: nn.Module, checkpoint: str, classes: Sequence[str]) -> None:
    """Warn in one line about weights and classes in which a training differs from its checkpoint.

    Args:
        model: detector or segmentor. Its backbone is left out, since it loads all weights or none.
        checkpoint: file or address that the training starts from.
        classes: class names of the training data, empty if unknown.
    """
    content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')
    misfits = _misfits(model, content)
    others = [str(misfit) for misfit in misfits if misfit.theirs is not None]
    absent = Counter(misfit.name.split('.')[0] for misfit in misfits if misfit.theirs is None)
    parts = [f'{count} of {part}: missing in the file' for part, count in absent.items()]
    if len(others) > MAX_NAMED:
        others[MAX_NAMED:] = [f'and {len(others) - MAX_NAMED} more of another shape']
    warnings = _other_classes(content, classes)
    if misfits:
        warnings.append(
            f'{len(misfits)} tensors keep their initial values ({"; ".join(others + parts)})'
        )
    if warnings:
        print_log(f'{checkpoint}: {"; ".join(warnings)}', logger='current', level=logging.WARNING)


def warn_of_other_classes(checkpoint: str, classes: Sequence[str]) -> None:
    """Warn if a checkpoint was trained on other classes than those of the data."""
    content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')
    for warning in _other_classes(content, classes):
        print_log(f'{checkpoint}: {warning}', logger='current', level=logging.WARNING)


def _misfits(model: nn.Module, content: Mapping[str, Any]) -> list[Misfit]:
    """Tensors outside the backbones that a checkpoint lacks or has in another shape."""
    weights = {key.removeprefix('module.'): value for key, value in unwrap(content).items()}
    strict = tuple(
        f'{name}.' for name, part in model.named_modules() if isinstance(part, PyramidBackbone)
    )
    return [
        Misfit(name, tuple(weights[name].shape) if name in weights else None, tuple(value.shape))
        for name, value in model.state_dict().items()
        if not name.startswith(strict) and not name.endswith('num_batches_tracked')
        if name not in weights or weights[name].shape != value.shape
    ]


def _other_classes(content: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    meta = content.get('meta') or {}
    # mmdet before 3.0 and mmseg before 1.0 store meta["CLASSES"].
    theirs = {key.lower(): value for key, value in (meta.get('dataset_meta') or meta).items()}.get(
        'classes'
    )
    theirs = (theirs,) if isinstance(theirs, str) else theirs
    if not theirs or not classes or list(theirs) == list(classes):
        return []
    return [f'it was trained on {_some(theirs)}, these data have {_some(classes)}']


def _some(classes: Sequence[str]) -> str:
    named = ', '.join(classes[:4]) + (', …' if len(classes) > 4 else '')
    return f'{len(classes)} class{"es" if len(classes) != 1 else ""} ({named})'


def _listed(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]
