"""Replacing the data sets and classes of a config by the user's own COCO files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightvit_mm.data.coco_file import read_coco
from lightvit_mm.data.config import datasets_of, evaluators_of
from lightvit_mm.data.findings import DataError
from lightvit_mm.errors import ConfigError, MissingFileError, UserError

# The heads whose number of classes is that of the data set.
HEADS = ('bbox_head', 'mask_head', 'decode_head')


def use_own_data(
    config: Any,
    train_data: tuple[str, str] | None = None,
    val_data: tuple[str, str] | None = None,
    classes_from: str | None = None,
) -> None:
    """Point the config of a detector at other COCO files and classes, in place.

    Args:
        config: an mmdet config.
        train_data: annotation file and image folder to train on.
        val_data: annotation file and image folder to validate and test on.
        classes_from: annotation file whose categories become the classes.

    Raises:
        UserError: a file or folder is missing or unsuitable, or the config cannot use it.
    """
    options = {'--train-data': train_data, '--val-data': val_data, '--classes-from': classes_from}
    given = [option for option, value in options.items() if value]
    if not given:
        return
    if config.get('default_scope') != 'mmdet':
        raise UserError(
            f'{given[0]} is for detectors, whose data are COCO files; {config.filename} is a '
            f'config of {config.get("default_scope")}'
        )
    if train_data:
        _redirect(config, '--train-data', ('train',), *train_data)
    if val_data:
        _redirect(config, '--val-data', ('val', 'test'), *val_data)
    if classes_from:
        set_classes(config, classes_from)


def set_classes(config: Any, ann_file: str) -> None:
    """Give every head and data set of a detector's config the classes of an annotation file.

    The changes are printed.

    Raises:
        UserError: the file has no usable categories, or no head of the config has a number of
            classes.
    """
    classes = categories_of(ann_file)
    heads = list(class_heads(config.model))
    if not heads:
        raise ConfigError(
            f'--classes-from: no {" or ".join(HEADS)} of {config.filename} has num_classes'
        )
    changes = []
    for name, head in heads:
        changes.append(f'{name}.num_classes {head["num_classes"]} -> {len(classes)}')
        head['num_classes'] = len(classes)
    metainfo: dict[str, Any] = {'classes': classes}
    if len(classes) > 80:
        # mmdet draws with COCO's 80 colours, and fails if there are more classes.
        from mmdet.visualization import get_palette

        metainfo['palette'] = [tuple(map(int, c)) for c in get_palette('random', len(classes))]
    for part in ('train', 'val', 'test'):
        for dataset in datasets_of(config.get(f'{part}_dataloader') or {}):
            dataset['metainfo'] = metainfo
    if os.environ.get('RANK', '0') == '0':
        listed = ', '.join(classes[:10]) + (', …' if len(classes) > 10 else '')
        print(f'classes from {ann_file}: {listed}; {", ".join(changes)}')


def categories_of(ann_file: str) -> tuple[str, ...]:
    """The names of a COCO file's categories in the order of the file, as mmdet numbers them.

    Raises:
        UserError: the file is missing or not a COCO file, or it has no categories, one without a
            name, or two with the same name or id.
    """
    if not Path(ann_file).is_file():
        raise MissingFileError(f'--classes-from {ann_file}: there is no such file')
    categories = read_coco(ann_file, annotated=False)['categories']
    if not categories:
        raise DataError(f'--classes-from {ann_file}: its list of categories is empty')
    for category in categories:
        number, name = category.get('id'), category.get('name')
        if not isinstance(number, int | str) or not isinstance(name, str):
            raise DataError(f'--classes-from {ann_file}: a category without id or name: {category}')
    for key in ('id', 'name'):
        counts = Counter(category[key] for category in categories)
        twice = [str(value) for value, count in counts.items() if count > 1]
        if twice:
            raise DataError(
                f'--classes-from {ann_file}: categories of the same {key}: {", ".join(twice)}; '
                'merge them, or make them different'
            )
    return tuple(category['name'] for category in categories)


def class_heads(model: Any, name: str = 'model') -> Iterator[tuple[str, dict]]:
    """Yield the heads of a model config that have the data set's number of classes, by name."""
    if isinstance(model, (list, tuple)):
        for index, child in enumerate(model):
            yield from class_heads(child, f'{name}.{index}')
    elif isinstance(model, dict):
        if name.rstrip('.0123456789').split('.')[-1] in HEADS and 'num_classes' in model:
            yield name, model
        for key, child in model.items():
            yield from class_heads(child, f'{name}.{key}')


def _redirect(config: Any, option: str, parts: tuple[str, ...], ann_file: str, images: str) -> None:
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS

    if not Path(ann_file).is_file():
        raise MissingFileError(f'{option} ANN IMAGES: {ann_file} is not a file')
    if not Path(images).is_dir():
        raise MissingFileError(f'{option} ANN IMAGES: {images} is not a folder')
    root, ann_file, images = _below_common_folder(ann_file, images)
    for part in parts:
        datasets = list(datasets_of(config.get(f'{part}_dataloader') or {}))
        if len(datasets) != 1:
            raise ConfigError(
                f'{option} replaces one data set, but {part}_dataloader of '
                f'{config.filename} has {len(datasets)}'
            )
        kind = datasets[0].get('type')
        found = DATASETS.get(kind) if isinstance(kind, str) else kind
        if not (isinstance(found, type) and issubclass(found, CocoDataset)):
            raise ConfigError(
                f'{option} is for COCO files, but {part}_dataloader.dataset.type of '
                f'{config.filename} is {kind}; set it to CocoDataset'
            )
        datasets[0].update(data_root=root, ann_file=ann_file, data_prefix={'img': images})
        for evaluator in evaluators_of(config.get(f'{part}_evaluator')):
            if 'ann_file' in evaluator:
                evaluator['ann_file'] = os.path.join(root, ann_file)
    # It describes the original data.
    config.pop('how_to_get_data', None)


def _below_common_folder(ann_file: str, images: str) -> tuple[str, str, str]:
    """Return a common root and both paths below it, so that ``--data-root`` can replace it."""
    if os.path.isabs(ann_file) != os.path.isabs(images):
        ann_file, images = os.path.abspath(ann_file), os.path.abspath(images)
    root = os.path.commonpath([os.path.dirname(ann_file), images]) or '.'
    return f'{root}/', os.path.relpath(ann_file, root), f'{os.path.relpath(images, root)}/'
