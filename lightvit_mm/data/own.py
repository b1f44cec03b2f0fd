"""Replacing the data sets and classes of a config by the user's own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightvit_mm.data.class_folders import use_own_class_folders
from lightvit_mm.data.coco_file import read_coco
from lightvit_mm.data.coco_masks import has_run_lengths, reads_polygons_only
from lightvit_mm.data.config import (
    below_common_folder,
    datasets_of,
    evaluators_of,
    is_classifier,
    only_dataset,
    set_class_heads,
)
from lightvit_mm.data.findings import DataError
from lightvit_mm.data.own_label_maps import use_own_label_maps
from lightvit_mm.errors import ConfigError, MissingFileError, UserError

__all__ = ['categories_of', 'set_classes', 'use_own_data']


def use_own_data(
    config: Any,
    train_data: Sequence[str] | None = None,
    val_data: Sequence[str] | None = None,
    classes_from: str | None = None,
) -> None:
    """Point a config at other data and classes, in place.

    Args:
        config: config of a detector, segmentor or classifier.
        train_data: what to train on: for a detector a COCO file and the folder of its images, for
            a segmentor the folder of images and that of label maps, for a classifier the folder of
            its classes' folders.
        val_data: the same to validate and test on.
        classes_from: where the classes are: for a detector a COCO file, for a segmentor a file as
            `read_classes` takes it.

    Raises:
        UserError: a file or folder is missing or unsuitable, or the config cannot use it.
    """
    options = {'--train-data': train_data, '--val-data': val_data, '--classes-from': classes_from}
    given = [option for option, value in options.items() if value]
    if not given:
        return
    if is_classifier(config):
        use_own_class_folders(config, train_data, val_data, classes_from)
        return
    for option, value in list(options.items())[:2]:
        if value and len(value) != 2:
            raise UserError(
                f'{option} {value[0]}: only a classifier takes one folder; a detector takes a COCO '
                'file and a folder of images, a segmentor folders of images and of label maps'
            )
    scope = config.get('default_scope')
    if scope == 'mmseg':
        use_own_label_maps(config, train_data, val_data, classes_from)
        return
    if scope != 'mmdet':
        raise UserError(
            f'{given[0]} is for configs of mmdet and mmseg; {config.filename} is one of {scope}'
        )
    if train_data:
        _redirect(config, '--train-data', ('train',), *train_data)
        _read_run_lengths(config, train_data[0])
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
    changes = set_class_heads(config, len(classes))
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


def _redirect(config: Any, option: str, parts: tuple[str, ...], ann_file: str, images: str) -> None:
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS

    if not Path(ann_file).is_file():
        is_folder = Path(ann_file).is_dir()
        hint = ' (a detector takes a COCO file, a segmentor folders)' if is_folder else ''
        raise MissingFileError(f'{option} ANN IMAGES: {ann_file} is not a file{hint}')
    if not Path(images).is_dir():
        raise MissingFileError(f'{option} ANN IMAGES: {images} is not a folder')
    root, ann_file, images = below_common_folder(ann_file, images)
    for part in parts:
        dataset = only_dataset(config, part, option)
        kind = dataset.get('type')
        found = DATASETS.get(kind) if isinstance(kind, str) else kind
        if not (isinstance(found, type) and issubclass(found, CocoDataset)):
            raise ConfigError(
                f'{option} is for COCO files, but {part}_dataloader.dataset.type of '
                f'{config.filename} is {kind}; set it to CocoDataset'
            )
        dataset.update(data_root=root, ann_file=ann_file, data_prefix={'img': images})
        for evaluator in evaluators_of(config.get(f'{part}_evaluator')):
            if 'ann_file' in evaluator:
                evaluator['ann_file'] = os.path.join(root, ann_file)
    # It describes the original data.
    config.pop('how_to_get_data', None)


def _read_run_lengths(config: Any, ann_file: str) -> None:
    """Let a training that reads polygons only, and ignores other masks, read both."""
    pipelines = [dataset.get('pipeline') for dataset in datasets_of(config.train_dataloader)]
    pipelines += [hook.get('switch_pipeline') for hook in config.get('custom_hooks') or ()]
    transforms = [transform for pipeline in pipelines for transform in pipeline or ()]
    polygons_only = [each for each in transforms if reads_polygons_only(each)]
    if polygons_only and any(map(has_run_lengths, read_coco(ann_file)['annotations'])):
        for transform in polygons_only:
            transform['poly2mask'] = True
        if os.environ.get('RANK', '0') == '0':
            print(f'{ann_file} has masks as run lengths: LoadAnnotations.poly2mask False -> True')
