"""A trained detector, segmentor or classifier, loaded for inference."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from lightvit_mm.backbones import PyramidBackbone
from lightvit_mm.classification.published import readable_names, use_published_input
from lightvit_mm.data.config import class_heads, is_classifier
from lightvit_mm.engine.memory import keep_freed_memory
from lightvit_mm.engine.model_checks import dataset_meta_of, require_whole
from lightvit_mm.errors import UserError
from lightvit_mm.layers.fold import fold_conv_modules


def usable_device(name: str | None) -> str:
    """Check that a device can be used and return its name; None chooses a GPU if there is one.

    Raises:
        UserError: torch cannot use the device.
    """
    name = name or ('cuda:0' if torch.cuda.is_available() else 'cpu')
    try:
        torch.empty(0, device=name)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f'--device {name}: {reason}; cpu always works') from error
    if name == 'cpu':
        keep_freed_memory()
    return name


def load_model(config: Config, checkpoint: str, device: str, backbone_only: bool = False) -> Any:
    """Load the trained model of a config, in eval mode and deploy form.

    Its ``dataset_meta`` has the classes and colours to show: those in the checkpoint if it has
    them, else those of the config's test data.

    Args:
        config: config from `load_config`.
        checkpoint: file or address of its weights.
        device: torch device.
        backbone_only: the rest of the model will not be used, and need not be in the checkpoint.

    Raises:
        UserError: the checkpoint lacks weights, or there is no name for every class.
    """
    if is_classifier(config):
        return _load_classifier(config, checkpoint, device)
    if not config.get('test_dataloader') and config.get('val_dataloader'):
        config.test_dataloader = config.val_dataloader
    if config.default_scope == 'mmdet':
        from mmdet.apis import init_detector as init_model
    else:
        from mmseg.apis import init_model
    with warnings.catch_warnings(record=True):  # of COCO's classes, which are replaced below
        model = init_model(config, device=device)
    require_whole(model, checkpoint, 'backbone.' if backbone_only else '')
    content = load_checkpoint(model, checkpoint, map_location='cpu')
    if not backbone_only:
        model.dataset_meta = _dataset_meta(config, content, checkpoint)
    return deploy_form(model)


def _load_classifier(config: Config, checkpoint: str, device: str) -> Any:
    use_published_input(config, checkpoint)
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    require_whole(model, checkpoint)
    content = load_checkpoint(model, checkpoint, map_location='cpu')
    classes = dataset_meta_of(content, checkpoint).get('classes') or ()
    number = model.head.num_classes
    names = readable_names(classes, number)
    if len(names) != number:
        raise UserError(
            f'{checkpoint} names {len(names)} classes, and model.head.num_classes is {number}. Use '
            'the config that the checkpoint was trained with'
        )
    model.cfg, model.dataset_meta = config, {'classes': names}
    return deploy_form(model.to(device).eval())


def deploy_form(model: Any) -> Any:
    """Fold a detector or segmentor for inference, in place: the backbone, neck and heads.

    On a CPU, they also work in channels_last, which saves the levels' copies to another layout and
    is faster in most heads and in mmseg's resizing of logits. mmcv's operators, such as RoIAlign,
    take contiguous maps for granted: a model that has one keeps the layout.

    Args:
        model: in eval mode; a backbone that is not this package's stays as it is.

    Returns:
        ``model``.
    """
    own = isinstance(model.backbone, PyramidBackbone)
    if own:
        model.backbone.switch_to_deploy()
    for name, part in model.named_children():
        if name != 'backbone':
            fold_conv_modules(part)
    on_cpu = next(model.parameters()).device.type == 'cpu'
    if own and on_cpu and not any(map(_is_mmcv_operator, model.modules())):
        model.to(memory_format=torch.channels_last)
        model.backbone.level_format = torch.channels_last
    return model


def _is_mmcv_operator(module: nn.Module) -> bool:
    return type(module).__module__.startswith('mmcv.ops.')


def _dataset_meta(config: Config, content: Mapping[str, Any], checkpoint: str) -> dict[str, Any]:
    """Classes and colours to show, of a model that is loaded from a checkpoint."""
    meta = dataset_meta_of(content, checkpoint)
    is_detector = config.default_scope == 'mmdet'
    data: Mapping[str, Any] = {}
    if is_detector or 'classes' not in meta or 'palette' not in meta:
        data = DATASETS.build({**config.test_dataloader.dataset, 'lazy_init': True}).metainfo
    source = checkpoint if 'classes' in meta else f'test_dataloader.dataset of {config.filename}'
    classes = meta.setdefault('classes', tuple(data.get('classes') or ()))
    for name, head in class_heads(config.model):
        if head['num_classes'] > len(classes):
            raise UserError(
                f'{name}.num_classes is {head["num_classes"]}, but {source} names {len(classes)} '
                'classes. Use the config that the checkpoint was trained with; if the checkpoint '
                'names no classes, the config does, in test_dataloader.dataset.metainfo.classes'
            )
        if head['num_classes'] < len(classes):
            print_log(
                f'{source} names {len(classes)} classes, and {name}.num_classes is '
                f'{head["num_classes"]}: the first names are used, which may be wrong',
                logger='current',
                level=logging.WARNING,
            )
    # The order of mmdet's init_detector and of mmseg's init_model.
    first, second = (data, meta) if is_detector else (meta, data)
    for palette in (first.get('palette'), second.get('palette')):
        if is_detector and isinstance(palette, str):  # mmdet knows some by name
            return {**meta, 'palette': palette}
        if colours := _colours(palette, len(classes)):
            return {**meta, 'palette': colours}
    if is_detector:
        return {**meta, 'palette': 'random'}
    random = np.random.default_rng(42).integers(0, 256, (len(classes), 3))
    return {**meta, 'palette': list(map(tuple, random.tolist()))}


def _colours(palette: Any, number: int) -> list[tuple] | None:
    """A palette in the form that mmengine draws; None if it is not one of ``number`` colours."""
    if not isinstance(palette, (list, tuple)) or len(palette) < number:
        return None
    if not all(isinstance(colour, (list, tuple)) and len(colour) == 3 for colour in palette):
        return None
    return [tuple(colour) for colour in palette]
