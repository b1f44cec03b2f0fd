"""Replacing the data sets and classes of a segmentor's config by the user's own label maps."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightvit_mm.data.classes_file import Classes, read_classes
from lightvit_mm.data.config import (
    below_common_folder,
    datasets_of,
    only_dataset,
    set_class_heads,
)
from lightvit_mm.data.findings import DataError
from lightvit_mm.data.images import MOST_COLOURS, label_map_fault
from lightvit_mm.errors import ConfigError, MissingFileError, UserError
from lightvit_mm.files import IMAGE_SUFFIXES

PARTS = {'--train-data': ('train',), '--val-data': ('val', 'test')}


class Folders(NamedTuple):
    """A folder of images and one of label maps with the same names, but for the suffix.

    Attributes:
        root: a folder that holds both.
        images, labels: both relative to ``root``.
        image_suffix, label_suffix: how the names of all files end.
    """

    root: str
    images: str
    labels: str
    image_suffix: str
    label_suffix: str


def use_own_label_maps(
    config: Any,
    train_data: Sequence[str] | None = None,
    val_data: Sequence[str] | None = None,
    classes_from: str | None = None,
) -> None:
    """Point the config of a segmentor at other images, label maps and classes, in place.

    Label 0 is the first class, unless the file of classes says ``"reduce_zero_label": true``;
    without such a file, what the config has stays. The changes are printed.

    Args:
        config: an mmseg config.
        train_data: folders of images and label maps to train on.
        val_data: folders of images and label maps to validate and test on.
        classes_from: file of names and colours, see `read_classes`.

    Raises:
        UserError: a file or folder is missing or unsuitable, or the config cannot use it.
    """
    classes = read_classes(classes_from) if classes_from else None
    for option, pair in (('--train-data', train_data), ('--val-data', val_data)):
        if pair:
            folders = _look_into(option, *pair)
            for part in PARTS[option]:
                _redirect(config, part, option, folders)
    # With a value of their own, transforms would contradict the data set.
    for transform in _transforms(list(config.values()), 'LoadAnnotations'):
        transform.pop('reduce_zero_label', None)
    if classes and classes_from:
        _set_classes(config, classes, classes_from)


def _look_into(option: str, images: str, labels: str) -> Folders:
    """Find out how the files of both folders are named, and whether the latter are label maps."""
    usage = f'{option} IMAGES LABELS'
    for path in (images, labels):
        if Path(path).is_file():
            raise UserError(
                f'{usage}: {path} is a file. A segmentor takes the folder of images, then that of '
                'label maps; COCO files are for detectors'
            )
        if not Path(path).is_dir():
            raise MissingFileError(f'{usage}: {path} is not a folder')
    if os.path.realpath(images) == os.path.realpath(labels):
        raise DataError(f'{usage}: {images} is given for both; they must be two folders')
    image_suffix, names = _names(usage, images)
    label_suffix, label_names = _names(usage, labels)
    common = sorted(set(names) & set(label_names))
    if not common:
        raise DataError(
            f'{usage}: no image has the name of a label map ({names[0]}{image_suffix} and '
            f'{label_names[0]}{label_suffix}, for instance). A label map is named like its image, '
            'but for the suffix, and in a folder of the same name if there are folders'
        )
    _judge_first(usage, images, labels, common[0] + image_suffix, common[0] + label_suffix)
    return Folders(*below_common_folder(images, labels), image_suffix, label_suffix)


def _names(usage: str, folder: str) -> tuple[str, list[str]]:
    """The suffix of all images in a folder, and their sorted names without it."""
    files = [file.relative_to(folder) for file in Path(folder).rglob('*') if file.is_file()]
    files = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    counts = Counter(file.suffix for file in files)
    if len(counts) != 1:
        found = ', '.join(f'{number} {suffix}' for suffix, number in counts.most_common())
        raise DataError(
            f'{usage}: {folder} has '
            + (f'files of several kinds ({found}), of which' if files else 'no images;')
            + f' mmseg reads one kind, of {" ".join(IMAGE_SUFFIXES)}: save them all as one'
        )
    (suffix,) = counts
    return suffix, sorted(str(file)[: -len(suffix)] for file in files)


def _judge_first(usage: str, images: str, labels: str, image: str, label: str) -> None:
    """Refuse photos and colour-coded masks in place of label maps, judging by the first one."""
    place = os.path.join(labels, label)
    fault = label_map_fault(place)
    if not fault:
        return
    if fault == MOST_COLOURS and not label_map_fault(os.path.join(images, image)):
        raise DataError(
            f'{usage}: {labels} has photos and {images} has label maps; give them the other way '
            'round'
        )
    raise DataError(f'{usage}: {place} is no label map: {fault}')


def _redirect(config: Any, part: str, option: str, folders: Folders) -> None:
    from mmseg.datasets import BaseSegDataset

    dataset = only_dataset(config, part, option)
    kind = _kind(dataset)
    if not (isinstance(kind, type) and issubclass(kind, BaseSegDataset)):
        raise ConfigError(
            f'{option} is for label maps, but {part}_dataloader.dataset.type of {config.filename} '
            f'is {dataset.get("type")}; set it to BaseSegDataset'
        )
    metainfo = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
    default = inspect.signature(kind).parameters.get('reduce_zero_label')
    dataset.setdefault('reduce_zero_label', bool(default and default.default))
    dataset.pop('ann_file', None)
    dataset.update(
        type='BaseSegDataset',
        data_root=folders.root,
        data_prefix={'img_path': folders.images, 'seg_map_path': folders.labels},
        img_suffix=folders.image_suffix,
        seg_map_suffix=folders.label_suffix,
        metainfo={key: metainfo[key] for key in ('classes', 'palette') if key in metainfo},
    )
    # It describes the original data.
    config.pop('how_to_get_data', None)


def _set_classes(config: Any, classes: Classes, file: str) -> None:
    changes = set_class_heads(config, len(classes.names))
    metainfo: dict[str, Any] = {'classes': classes.names}
    if classes.palette:
        metainfo['palette'] = classes.palette
    for part in ('train', 'val', 'test'):
        for dataset in datasets_of(config.get(f'{part}_dataloader') or {}):
            fixed = getattr(_kind(dataset), 'METAINFO', {}).get('classes')
            if fixed and tuple(fixed) != classes.names:
                option = '--train-data' if part == 'train' else '--val-data'
                raise ConfigError(
                    f'--classes-from {file}: {dataset["type"]} of {part}_dataloader has classes of '
                    f'its own; give {option} IMAGES LABELS as well'
                )
            dataset['metainfo'] = metainfo
            dataset['reduce_zero_label'] = classes.reduce_zero_label
    if os.environ.get('RANK', '0') == '0':
        listed = ', '.join(classes.names[:10]) + (', …' if len(classes.names) > 10 else '')
        first = (
            f'label 0 is ignored, label 1 is {classes.names[0]} (reduce_zero_label=True)'
            if classes.reduce_zero_label
            else f'label 0 is {classes.names[0]} (reduce_zero_label=False)'
        )
        print(f'classes from {file}: {listed}; {first}; {", ".join(changes)}')


def _kind(dataset: dict) -> Any:
    from mmengine.registry import DATASETS

    kind = dataset.get('type')
    if not isinstance(kind, str):
        return kind
    with DATASETS.switch_scope_and_registry('mmseg') as registry:
        return registry.get(kind)


def _transforms(value: Any, name: str) -> Iterator[dict]:
    """Yield every transform of a type in a config, in any pipeline and wrapper."""
    if isinstance(value, dict):
        if str(value.get('type')).split('.')[-1] == name:
            yield value
        value = list(value.values())
    for child in value if isinstance(value, (list, tuple)) else ():
        yield from _transforms(child, name)
