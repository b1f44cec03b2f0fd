"""Checks of a COCO annotation file, as mmdet would read it; images are not opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightvit_mm.data.coco_file import LONGEST, is_id, is_number, is_text
from lightvit_mm.data.coco_masks import has_run_lengths, judge_mask
from lightvit_mm.data.findings import ERROR, NOTE, WARNING, Finding, Judgement, some_of

ANNOTATION_FIELDS = ('id', 'image_id', 'category_id', 'bbox', 'area')
IMAGE_FIELDS = ('id', 'file_name', 'height', 'width')
OVERSHOOT = 1.0  # pixels; boxes in COCO itself extend beyond their images by up to this much
LARGEST = 1e10  # pixels; COCO's evaluation ignores objects of a larger area


@dataclass(frozen=True)
class CocoUse:
    """How a config reads an annotation file.

    Attributes:
        file: the annotation file.
        image_folder: the folder that image names are relative to.
        classes: the names of the classes, in the order of their labels.
        with_mask: whether masks are read.
        polygons_only: whether objects whose masks are run lengths are ignored.
        training: whether images are filtered, as in training.
        filter_empty: whether images without annotations are left out of training.
        min_size: images with a shorter side are left out of training.
    """

    file: str
    image_folder: str
    classes: tuple[str, ...]
    with_mask: bool = False
    polygons_only: bool = False
    training: bool = True
    filter_empty: bool = False
    min_size: int = 0


@dataclass
class CocoContent:
    """The parts of an annotation file that later checks can rely on.

    Attributes:
        images: the images, by id.
        annotations: the annotations, by id of their image.
        num_images, num_annotations: how many the file has.
        findings: what was found in the file.
    """

    images: dict[Any, dict] = field(default_factory=dict)
    annotations: dict[Any, list[dict]] = field(default_factory=dict)
    num_images: int = 0
    num_annotations: int = 0
    findings: list[Finding] = field(default_factory=list)


def check_coco(content: Mapping[str, list], use: CocoUse) -> CocoContent:
    """Check an annotation file as mmdet will read it.

    Args:
        content: result of `read_coco`.
        use: how the config reads it.

    Returns:
        The content, with a finding for everything that mmdet would stop at, drop or misread.
    """
    result = CocoContent(num_images=len(content['images']))
    result.num_annotations = len(content['annotations'])

    def found(severity: str, kind: str, detail: str, item: str = '') -> None:
        printable = item.encode(errors='backslashreplace').decode()[:80]
        result.findings.append(Finding(severity, kind, use.file, printable, detail))

    category_ids = _check_categories(content['categories'], use, found)
    on_disk = lru_cache(maxsize=None)(_names_in)
    paths: Counter[str] = Counter()
    for image in content['images']:
        item = f'image {image.get("id", "without an id")}'
        fault = _judge_image(image, result.images)
        if fault:
            found(*fault, item)
            continue
        result.images[image['id']] = image
        path = os.path.join(use.image_folder, image['file_name'])
        paths[path] += 1
        folder, name = os.path.split(path)
        if name not in on_disk(folder):
            found(ERROR, 'image file missing', path, item)
        if paths[path] == 2:
            found(WARNING, 'image file listed more than once', path, item)
        if use.training and min(image['width'], image['height']) < use.min_size:
            found(
                NOTE,
                'image smaller than min_size of the config, left out',
                f'{image["width"]} x {image["height"]}',
                item,
            )
    if not use.training:
        for name, keys in (('images', result.images), ('categories', category_ids)):
            if len({isinstance(key, str) for key in keys}) > 1:
                found(
                    ERROR, f'ids of {name} that mix text and numbers', some_of([*map(repr, keys)])
                )
    _check_iscrowd(content['annotations'], use, found)
    ids: set[Any] = set()
    for annotation in content['annotations']:
        item = f'annotation {annotation.get("id", "without an id")}'
        for judgement in _judge_annotation(annotation, ids, result.images, category_ids, use):
            found(*judgement, item)
        if is_id(annotation.get('id')):
            ids.add(annotation['id'])
        if is_id(annotation.get('image_id')) and is_id(annotation.get('category_id')):
            result.annotations.setdefault(annotation['image_id'], []).append(annotation)
    _check_what_is_left(result, category_ids, use, found)
    return result


def _check_iscrowd(annotations: list, use: CocoUse, found: Callable[..., None]) -> None:
    lacking = [a.get('id', 'without an id') for a in annotations if 'iscrowd' not in a]
    if not lacking:
        return
    detail = f'{len(lacking)} of {len(annotations)}'
    if use.training:
        found(NOTE, 'annotations without iscrowd, read as 0', detail, f'annotation {lacking[0]}')
        return
    copy = Path(use.file).with_suffix('.iscrowd.json')
    found(
        ERROR,
        'annotations without iscrowd, which the evaluation needs',
        f'{detail}. python tools/check_data.py CONFIG --add-iscrowd {use.file} {copy} writes a '
        'copy with 0 for them; validate on it (--val-data ANN IMAGES)',
        f'annotation {lacking[0]}',
    )


def _check_categories(categories: list, use: CocoUse, found: Callable[..., None]) -> dict[Any, str]:
    """Return the names of all categories by id; report labels that would change their meaning."""
    by_id: dict[Any, str] = {}
    names: set[str] = set()
    for category in categories:
        item = f'category {category.get("id", "without an id")}'
        if not is_id(category.get('id')) or not is_text(category.get('name')):
            found(ERROR, 'category without an id or a name', str(category)[:80], item)
        elif category['id'] in by_id:
            found(ERROR, 'category id used twice', category['name'], item)
        elif category['name'] in names:
            found(ERROR, 'category name used twice', category['name'], item)
        else:
            by_id[category['id']] = category['name']
            names.add(category['name'])
    # mmdet numbers the categories that it uses in the order of the file.
    taken = [name for name in by_id.values() if name in use.classes]
    if not taken:
        found(
            ERROR,
            'no class of the config is a category of the file',
            f'classes {some_of(use.classes)}; categories {some_of(list(by_id.values()))} '
            '(--classes-from ANN uses the categories)',
        )
    elif taken != list(use.classes[: len(taken)]):
        wrong = next(i for i, name in enumerate(taken) if name != use.classes[i])
        found(
            ERROR,
            'labels would mean other classes',
            f'label {wrong} is {use.classes[wrong]!r} in the config, but mmdet numbers the '
            f'categories in the order of the file, where it is {taken[wrong]!r}: give '
            f'metainfo.classes in the order of the file ({some_of(taken)})',
        )
    elif len(taken) < len(use.classes):
        missing = use.classes[len(taken) :]
        found(WARNING, 'class of the config that is not a category of the file', some_of(missing))
    others = [name for name in by_id.values() if name not in use.classes]
    if taken and others:
        found(NOTE, 'category that is not a class of the config, left out', some_of(others))
    return by_id


def _judge_image(image: dict, known: Mapping[Any, dict]) -> Judgement | None:
    lacking = [key for key in IMAGE_FIELDS if key not in image]
    if lacking:
        return ERROR, 'image lacks a field', ', '.join(lacking)
    if not is_id(image['id']) or not is_text(image['file_name']):
        return ERROR, 'image id or file name of the wrong type', str(image)[:80]
    if image['id'] in known:
        return ERROR, 'image id used twice', image['file_name']
    size = image['width'], image['height']
    if not all(is_number(side) and 1 <= side <= LONGEST for side in size):
        return ERROR, 'impossible image size', f'{size[0]} x {size[1]}'[:80]
    return None


def _judge_annotation(
    annotation: dict,
    ids: set,
    images: Mapping[Any, dict],
    categories: Mapping[Any, str],
    use: CocoUse,
) -> Iterator[Judgement]:
    lacking = [key for key in ANNOTATION_FIELDS if key not in annotation]
    if lacking:
        yield ERROR, 'annotation lacks a field', ', '.join(lacking)
        return
    for key in ('id', 'image_id', 'category_id'):
        if not is_id(annotation[key]):
            yield ERROR, 'annotation id of the wrong type', f'{key} {annotation[key]!r}'
            return
    if isinstance(annotation['id'], str) and not (use.training or annotation['id'].isdecimal()):
        yield ERROR, 'annotation id that is no number, which the evaluation needs', ''
    if annotation['id'] in ids:
        yield ERROR, 'annotation id used twice', f'image {annotation["image_id"]}'
    if annotation['id'] == 0:
        yield WARNING, 'annotation id 0, which pycocotools counts as missed', 'number from 1'
    if annotation['image_id'] not in images:
        yield WARNING, 'annotation of an unknown image, left out', f'{annotation["image_id"]}'
        return
    if annotation.get('ignore'):
        yield NOTE, 'annotation marked "ignore", left out', f'image {annotation["image_id"]}'
        return
    if annotation.get('iscrowd', 0) not in (0, 1):
        yield ERROR, 'iscrowd that is neither 0 nor 1', f'{annotation["iscrowd"]!r}'[:80]
        return
    box, area = annotation['bbox'], annotation['area']
    if not isinstance(box, list) or len(box) != 4:
        yield ERROR, 'box that is not four numbers', f'{box!r}'[:80]
        return
    if not all(is_number(number) for number in (*box, area)):
        yield ERROR, 'box or area that is not a number', f'box {box}, area {area}'[:80]
        return
    if max(map(abs, box)) > LONGEST or area > LARGEST:
        yield ERROR, 'box or area larger than any image', f'box {box}, area {area}'[:80]
        return
    if annotation['category_id'] not in categories:
        yield WARNING, 'annotation of an unknown category, left out', f'{annotation["category_id"]}'
        return
    image = images[annotation['image_id']]
    yield from _judge_box(box, area, image['width'], image['height'])
    if use.with_mask and categories[annotation['category_id']] in use.classes:
        yield from judge_mask(annotation.get('segmentation'), image['width'], image['height'])
        if use.polygons_only and has_run_lengths(annotation):
            detail = 'set poly2mask=True in LoadAnnotations, or use --train-data'
            yield ERROR, 'mask of run lengths, instance ignored', detail


def _judge_box(box: list, area: float, width: float, height: float) -> Iterator[Judgement]:
    x, y, w, h = box
    if w < 0 or h < 0:
        yield WARNING, 'box of negative size, left out', f'{box}'
    elif min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        kind = 'box of no size, left out' if not w or not h else 'box outside the image, left out'
        yield WARNING, kind, f'{box} in {width} x {height}'
    elif w < 1 or h < 1:
        yield WARNING, 'box under a pixel, left out', f'{box}'
    elif area <= 0:
        yield WARNING, 'area of zero or less, left out', f'{area}'
    elif max(-x, -y, x + w - width, y + h - height) > OVERSHOOT:
        yield WARNING, 'box sticks out of the image', f'{box} in {width} x {height}'


def _check_what_is_left(
    result: CocoContent, categories: Mapping[Any, str], use: CocoUse, found: Callable[..., None]
) -> None:
    """Report classes and images without annotations, and whether any image is left to use."""
    wanted = {key for key, name in categories.items() if name in use.classes}
    used: Counter[str] = Counter()
    left = 0
    for key, image in result.images.items():
        mine = [a for a in result.annotations.get(key, ()) if a['category_id'] in wanted]
        used.update(categories[a['category_id']] for a in mine)
        if mine and all(annotation.get('iscrowd') for annotation in mine):
            found(NOTE, 'image with crowds only', image['file_name'], f'image {key}')
        elif not mine:
            what = 'left out' if use.training and use.filter_empty else 'all background'
            found(NOTE, f'image without annotations, {what}', image['file_name'], f'image {key}')
        big_enough = min(image['width'], image['height']) >= use.min_size
        if big_enough and (mine or not use.filter_empty):
            left += 1
    unused = [name for name in use.classes if name in categories.values() and not used[name]]
    if unused and use.training:
        found(WARNING, 'class without any annotation', some_of(unused))
    if not (left if use.training else result.images):
        found(
            ERROR,
            'no image is left',
            f'of {result.num_images}, after leaving out images without annotations of '
            f'{some_of(use.classes)} and images smaller than {use.min_size} pixels'
            if use.training
            else 'the file lists none',
        )


def _names_in(folder: str) -> frozenset[str]:
    # Listing a folder is much cheaper than checking each file, above all on a network drive.
    try:
        return frozenset(os.listdir(folder))
    except (OSError, ValueError):  # ValueError: a name with a null character
        return frozenset()
