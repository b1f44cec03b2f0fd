"""Checks, before a run, that the parts of a model and its checkpoint fit together."""

from __future__ import annotations

import logging
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import nn

from lightvit_mm.backbones import PyramidBackbone
from lightvit_mm.checkpoints import CheckpointError, WeightsError
from lightvit_mm.checkpoints.layout import form_misfit, has_values, unwrap
from lightvit_mm.classification import ImageClassifier
from lightvit_mm.errors import ConfigError, UserError

MAX_NAMED = 8  # tensors per warning; a Mask R-CNN has six in its last layers


class Fault(Enum):
    """Why a tensor cannot be loaded from a checkpoint."""

    MISSING = 'missing'
    SHAPE = 'another shape'
    VALUE = 'no numbers that a model can use'


class Misfit(NamedTuple):
    """A tensor of a model that cannot be loaded from a checkpoint.

    Attributes:
        name: name of the tensor in the model.
        fault: why.
        detail: what is in the file, and what the model expects.
    """

    name: str
    fault: Fault
    detail: str

    def __str__(self) -> str:
        return f'{self.name}: {self.detail}'


def check_loops(config: Config) -> None:
    """Check that validation and test are each there or not as a whole.

    Raises:
        ConfigError: a part of one is missing.
    """
    for part in ('val', 'test'):
        names = [f'{part}_{name}' for name in ('dataloader', 'evaluator', 'cfg')]
        absent = [name for name in names if config.get(name) is None]
        if 0 < len(absent) < len(names):
            raise ConfigError(
                f'{config.filename} has no {" and no ".join(absent)}: for a run without, write '
                f'{" = ".join(names)} = None'
            )


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
        if not isinstance(last.get('out_channels'), int):
            return
        # RTMDet's neck has as many outputs as inputs.
        levels = [last['out_channels']] * (last.get('num_outs') or len(levels))
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


def require_whole(model: nn.Module, checkpoint: str, part: str = '') -> None:
    """Refuse a checkpoint that lacks part of the model, for evaluation or prediction.

    mmengine loads what fits and warns about the rest, which is right only before a new training.
    The backbones check their own weights.

    Args:
        model: detector or segmentor.
        checkpoint: file or address that its weights come from.
        part: prefix of the tensors that are needed.

    Raises:
        WeightsError: a tensor of the neck or a head is missing, has another shape or kind, or has
            no finite values.
    """
    content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')
    require_all(model, unwrap(content), checkpoint, part)


def require_all(model: nn.Module, weights: Mapping[str, Any], source: str, part: str = '') -> None:
    """`require_whole` for weights that are already read from ``source``."""
    misfits = [misfit for misfit in _misfits(model, weights) if misfit.name.startswith(part)]
    _refuse_values(misfits, source)
    if misfits:
        raise WeightsError(
            f'{source} is not the checkpoint of a whole model of this config: {len(misfits)} '
            f'tensors do not fit ({_first(misfits)}). Use the config that it was trained with'
        )


def warn_of_new_weights(model: nn.Module, checkpoint: str, classes: Sequence[str]) -> None:
    """Warn in one line about weights and classes in which a training differs from its checkpoint.

    Args:
        model: detector or segmentor. Its backbone is left out, since it loads all weights or none.
        checkpoint: file or address that the training starts from.
        classes: class names of the training data, empty if unknown.

    Raises:
        WeightsError: a tensor has the shape of the model's, but another kind or no finite values.
    """
    content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')
    misfits = _misfits(model, unwrap(content))
    _refuse_values(misfits, checkpoint)
    others = [str(misfit) for misfit in misfits if misfit.fault is Fault.SHAPE]
    absent = Counter(m.name.split('.')[0] for m in misfits if m.fault is Fault.MISSING)
    parts = [f'{count} of {part}: missing in the file' for part, count in absent.items()]
    if len(others) > MAX_NAMED:
        others[MAX_NAMED:] = [f'and {len(others) - MAX_NAMED} more of another shape']
    warnings = _other_classes(content, checkpoint, classes)
    if misfits:
        warnings.append(
            f'{len(misfits)} tensors keep their initial values ({"; ".join(others + parts)})'
        )
    if warnings:
        print_log(f'{checkpoint}: {"; ".join(warnings)}', logger='current', level=logging.WARNING)


def warn_of_other_classes(checkpoint: str, classes: Sequence[str]) -> None:
    """Warn if a checkpoint was trained on other classes than those of the data."""
    content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')
    for warning in _other_classes(content, checkpoint, classes):
        print_log(f'{checkpoint}: {warning}', logger='current', level=logging.WARNING)


def check_exported_classes(file: str, theirs: Sequence[str], classes: Sequence[str]) -> None:
    """Warn if an exported file has other classes than those of the data.

    Raises:
        UserError: it has another number of classes.
    """
    content = {'meta': {'dataset_meta': {'classes': theirs}}}
    for warning in _other_classes(content, file, classes):
        if len(theirs) != len(classes):
            raise UserError(f'{file}: {warning}. Give the config and the data of this file')
        print_log(f'{file}: {warning}', logger='current', level=logging.WARNING)


def meta_of(content: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """What a checkpoint records besides its tensors; empty if it has no ``'meta'``.

    Raises:
        CheckpointError: it is not a dict.
    """
    meta = content.get('meta')
    return {} if meta is None else require_dict(meta, source, 'meta')


def require_dict(value: Any, source: str, name: str) -> Mapping[str, Any]:
    """Check that an entry of a checkpoint is a dict.

    Raises:
        CheckpointError: it is not.
    """
    if not isinstance(value, Mapping):
        raise CheckpointError(
            f'{source} is damaged: its {name!r} is a {type(value).__name__}; expected a dict'
        )
    return value


def dataset_meta_of(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """What a checkpoint records of its training data, such as ``'classes'`` and ``'palette'``.

    Args:
        content: the content of the checkpoint.
        source: its file or address, for messages.

    Returns:
        The entries, with names in lower case. ``'classes'`` is a tuple, and absent if unknown.

    Raises:
        CheckpointError: it is not a dict, or its classes are not names.
    """
    meta = meta_of(content, source)
    found = meta.get('dataset_meta')
    if found is None:
        # mmdet before 3.0 and mmseg before 1.0 store meta["CLASSES"].
        found = {key: meta[key] for key in meta if str(key).lower() in ('classes', 'palette')}
    found = require_dict(found, source, 'dataset_meta')
    entries = {str(key).lower(): value for key, value in found.items()}
    classes = entries.pop('classes', None)
    classes = (classes,) if isinstance(classes, str) else () if classes is None else classes
    if not isinstance(classes, (list, tuple)) or not all(isinstance(c, str) for c in classes):
        raise CheckpointError(
            f'{source} is damaged: its classes are {reprlib.repr(classes)}; expected a list of '
            'names. Delete them from the file, and those of the config are used'
        )
    return {**entries, 'classes': tuple(classes)} if classes else entries


def _misfits(model: nn.Module, weights: Mapping[str, Any]) -> list[Misfit]:
    """Tensors outside the backbones that cannot be loaded from the weights of a checkpoint."""
    weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    if isinstance(model, ImageClassifier):
        weights |= model.load_head(weights)
    strict = tuple(
        f'{name}.' for name, part in model.named_modules() if isinstance(part, PyramidBackbone)
    )
    misfits = []
    for name, tensor in model.state_dict().items():
        if name.startswith(strict):
            continue
        if name in weights:
            value = weights[name]
            if difference := form_misfit(value, tensor):
                is_tensor = isinstance(value, torch.Tensor) and not value.is_nested
                reshaped = is_tensor and value.shape != tensor.shape
                fault = Fault.SHAPE if reshaped else Fault.VALUE
                misfits.append(Misfit(name, fault, difference))
            elif not has_values(value):
                misfits.append(Misfit(name, Fault.VALUE, 'without finite values'))
        elif not name.endswith('num_batches_tracked'):
            detail = f'missing in the file, {tuple(tensor.shape)} here'
            misfits.append(Misfit(name, Fault.MISSING, detail))
    return misfits


def _refuse_values(misfits: Sequence[Misfit], source: str) -> None:
    broken = [misfit for misfit in misfits if misfit.fault is Fault.VALUE]
    if broken:
        raise WeightsError(
            f'{source} is damaged: {len(broken)} tensors hold no numbers that a model can use '
            f'({_first(broken)}). Nothing was loaded. Use an earlier checkpoint'
        )


def _first(misfits: Sequence[Misfit]) -> str:
    return '; '.join(map(str, misfits[:3])) + ('; …' if len(misfits) > 3 else '')


def _other_classes(content: Mapping[str, Any], source: str, classes: Sequence[str]) -> list[str]:
    theirs = dataset_meta_of(content, source).get('classes')
    if not theirs or not classes or list(theirs) == list(classes):
        return []
    return [f'it was trained on {_some(theirs)}, these data have {_some(classes)}']


def _some(classes: Sequence[str]) -> str:
    named = ', '.join(classes[:4]) + (', …' if len(classes) > 4 else '')
    return f'{len(classes)} class{"es" if len(classes) != 1 else ""} ({named})'


def _listed(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]
