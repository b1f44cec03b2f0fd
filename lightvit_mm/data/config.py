"""The data sets of a config: where their files are, whether they exist, and their classes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightvit_mm.data.imagenet_files import images_path
from lightvit_mm.errors import ConfigError, UserError

# The heads whose number of classes is that of the data set.
HEADS = ('bbox_head', 'mask_head', 'decode_head', 'auxiliary_head')
CLASSIFIER = 'ImageClassifier'
CLASS_FOLDERS = 'ClassFolders'


class MissingDataError(UserError):
    """Files of a data set are not where the config expects them."""


def is_classifier(config: Mapping[str, Any]) -> bool:
    """Whether a config is that of a classifier, and not of a detector or segmentor."""
    return config['model'].get('type') == CLASSIFIER


def datasets_of(dataloader: Mapping[str, Any] | None) -> Iterator[dict]:
    """The configs of the data sets that a dataloader reads, inside any wrappers."""
    waiting = [(dataloader or {}).get('dataset')]
    while waiting:
        dataset = waiting.pop()
        if not isinstance(dataset, dict):
            continue
        inner = dataset.get('datasets', dataset.get('dataset'))
        if inner is None:
            yield dataset
        else:
            waiting.extend(inner if isinstance(inner, (list, tuple)) else [inner])


def resize_scale(step: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height that a pipeline's ``Resize`` scales to, None if it has a factor instead."""
    scale = step.get('scale')
    return (scale, scale) if isinstance(scale, int) else tuple(scale) if scale else None


def data_paths(config: Mapping[str, Any]) -> list[str]:
    """Annotation files and folders of images and label maps that a config reads."""
    paths: list[str] = []
    for part in ('train', 'val', 'test'):
        for dataset in datasets_of(config.get(f'{part}_dataloader') or {}):
            paths += _paths(dataset)
        for evaluator in evaluators_of(config.get(f'{part}_evaluator')):
            paths += filter(None, [evaluator.get('ann_file')])
    return paths


def check_data(config: Mapping[str, Any], parts: tuple[str, ...]) -> None:
    """Check that the annotation files and folders of a config's data sets exist.

    Args:
        config: an mmdet or mmseg config.
        parts: which of ``'train'``, ``'val'`` and ``'test'`` will be read.

    Raises:
        MissingDataError: something is missing; the message lists it, and how to get it.
    """
    missing: list[str] = []
    for part in parts:
        for dataset in datasets_of(config.get(f'{part}_dataloader') or {}):
            missing += [path for path in _paths(dataset) if not Path(path).exists()]
        for evaluator in evaluators_of(config.get(f'{part}_evaluator')):
            path = evaluator.get('ann_file')
            if path and not Path(path).exists():
                missing.append(path)
    if missing:
        listed = '\n  '.join(dict.fromkeys(missing))
        hint = config.get('how_to_get_data', '')
        raise MissingDataError(
            f'the data set of this config is not there. Looked for (from {Path.cwd()}):\n  '
            f'{listed}\n{hint}\nIf you have it elsewhere: --data-root DIR '
            '(its layout inside DIR must be that of the paths above).'
        )


def retarget_data(config: dict, data_root: str) -> None:
    """Point every data set and evaluator of a config at another copy of its data, in place."""
    roots = {
        dataset['data_root']
        for part in ('train', 'val', 'test')
        for dataset in datasets_of(config.get(f'{part}_dataloader') or {})
        if dataset.get('data_root')
    }
    new_root = f'{Path(data_root).expanduser()}/'
    for part in ('train', 'val', 'test'):
        for dataset in datasets_of(config.get(f'{part}_dataloader') or {}):
            if dataset.get('data_root'):
                dataset['data_root'] = new_root
        for evaluator in evaluators_of(config.get(f'{part}_evaluator')):
            path = evaluator.get('ann_file')
            for root in sorted(roots, key=len, reverse=True):
                if path and path.startswith(root):
                    evaluator['ann_file'] = new_root + path[len(root) :].lstrip('/')
                    break


def _paths(dataset: Mapping[str, Any]) -> Iterator[str]:
    root = dataset.get('data_root') or ''
    if dataset.get('type') == CLASS_FOLDERS:
        yield str(images_path(dataset))
        return
    # COCO's box files, label maps and image folders are all given relative to the root.
    for relative in (dataset.get('ann_file'), *(dataset.get('data_prefix') or {}).values()):
        if relative and isinstance(relative, str):
            yield str(Path(root) / relative)


def evaluators_of(evaluator: Any) -> list[dict]:
    """The configs of an evaluator's metrics, given as None, one config or a list."""
    if evaluator is None:
        return []
    return list(evaluator) if isinstance(evaluator, (list, tuple)) else [evaluator]


def class_heads(model: Any, name: str = 'model') -> Iterator[tuple[str, dict]]:
    """Yield the heads of a model config that have the data set's number of classes, by name."""
    if isinstance(model, (list, tuple)):
        for index, child in enumerate(model):
            yield from class_heads(child, f'{name}.{index}')
    elif isinstance(model, dict):
        if name.rstrip('.0123456789').split('.')[-1] in HEADS and 'num_classes' in model:
            yield name, model
        if model.get('type') == CLASSIFIER:
            yield f'{name}.head', model['head']
        for key, child in model.items():
            yield from class_heads(child, f'{name}.{key}')


def set_class_heads(config: Any, number: int) -> list[str]:
    """Give every head of a config a number of classes, and return the changes as text.

    Raises:
        ConfigError: no head of the config has a number of classes.
    """
    changes = []
    for name, head in class_heads(config.model):
        changes.append(f'{name}.num_classes {head["num_classes"]} -> {number}')
        head['num_classes'] = number
    if not changes:
        raise ConfigError(
            f'--classes-from: no {" or ".join(HEADS)} of {config.filename} has num_classes'
        )
    return changes


def only_dataset(config: Any, part: str, option: str) -> dict:
    """The one data set of a part of a config, which an option replaces.

    Raises:
        ConfigError: there is none, or several.
    """
    datasets = list(datasets_of(config.get(f'{part}_dataloader') or {}))
    if len(datasets) != 1:
        raise ConfigError(
            f'{option} replaces one data set, but {part}_dataloader of '
            f'{config.filename} has {len(datasets)}'
        )
    return datasets[0]


def below_common_folder(first: str, second: str) -> tuple[str, str, str]:
    """Return a folder that holds two paths, and both below it: ``--data-root`` can replace it."""
    if os.path.isabs(first) != os.path.isabs(second):
        first, second = os.path.abspath(first), os.path.abspath(second)
    folder = first if os.path.isdir(first) else os.path.dirname(first)
    root = os.path.commonpath([folder, second]) or '.'
    return f'{root}/', os.path.relpath(first, root), f'{os.path.relpath(second, root)}/'
