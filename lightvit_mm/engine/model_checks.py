"""Whether the parts of a model fit each other, told before the first image goes through them."""

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

MOST_TOLD = 8  # tensors named in one line: the last layers of a Mask R-CNN are six


class Misfit(NamedTuple):
    """A tensor of a model that a checkpoint cannot give it.

    Attributes:
        name: of the tensor in the model.
        theirs: its shape in the checkpoint; None where it is missing.
        ours: its shape in the model.
    """

    name: str
    theirs: tuple[int, ...] | None
    ours: tuple[int, ...]

    def __str__(self) -> str:
        theirs = 'missing' if self.theirs is None else self.theirs
        return f'{self.name}: {theirs} in the file, {self.ours} here'


def check_channels(model: nn.Module, config: Mapping[str, Any]) -> None:
    """Compare what each part expects with what it gets, as far as the config says both.

    Args:
        model: a detector or a segmentor; one whose backbone is not ours is left alone.
        config: the config that it was built from.

    Raises:
        ConfigError: neck or head expect other channels, or a level that there is not.
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
    """Refuse to evaluate or resume a model of which a checkpoint has only a part.

    mmengine loads what fits and warns of the rest, which is right before a new training only. The
    backbones see to their own part.

    Args:
        model: a detector or a segmentor.
        checkpoint: what it will be, or has been, loaded from.

    Raises:
        WeightsError: a tensor of a neck or head is missing or of another shape.
    """
    content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')
    misfits = [str(misfit) for misfit in _misfits(model, content)]
    if misfits:
        raise WeightsError(
            f'{checkpoint} is not the checkpoint of a whole model of this config: {len(misfits)} '
            f'tensors do not fit ({"; ".join(misfits[:3])}{"; …" if len(misfits) > 3 else ""}). '
            'Give the config that it was trained with'
        )


def warn_of_new_weights(model: nn.Module, checkpoint: str, classes: Sequence[str]) -> None:
    """Warn in one line of what a training does not get from the checkpoint that it starts from.

    Args:
        model: a detector or a segmentor; of its backbone nothing is told, since its weights load
            as a whole.
        checkpoint: what it will be loaded from.
        classes: those of the data that it will be trained on; empty if unknown.
    """
    content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')
    misfits = _misfits(model, content)
    others = [str(misfit) for misfit in misfits if misfit.theirs is not None]
    absent = Counter(misfit.name.split('.')[0] for misfit in misfits if misfit.theirs is None)
    parts = [f'{count} of {part}: missing in the file' for part, count in absent.items()]
    if len(others) > MOST_TOLD:
        others[MOST_TOLD:] = [f'and {len(others) - MOST_TOLD} more of another shape']
    told = _other_classes(content, classes)
    if misfits:
        told.append(
            f'{len(misfits)} tensors keep their initial values ({"; ".join(others + parts)})'
        )
    if told:
        print_log(f'{checkpoint}: {"; ".join(told)}', logger='current', level=logging.WARNING)


def warn_of_other_classes(checkpoint: str, classes: Sequence[str]) -> None:
    """Warn if a checkpoint says that its head is of other classes than the data."""
    content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')
    for told in _other_classes(content, classes):
        print_log(f'{checkpoint}: {told}', logger='current', level=logging.WARNING)


def _misfits(model: nn.Module, content: Mapping[str, Any]) -> list[Misfit]:
    """The tensors outside the backbones that a checkpoint lacks or has in another shape."""
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
    # mmdet and mmseg before 3.0 and 1.0 have them in meta itself, in capitals.
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
