"""Checks of a COCO annotation file, as mmdet would read it; images are not opened."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightvit_mm.data.findings import ERROR, NOTE, WARNING, DataError, Finding, Judgement
from lightvit_mm.errors import MissingFileError, UserError
from lightvit_mm.files import write_whole

ANNOTATION_FIELDS = ('id', 'image_id', 'category_id', 'bbox', 'area')
IMAGE_FIELDS = ('id', 'file_name', 'height', 'width')
OVERSHOOT = 1.0  # pixels; boxes in COCO itself extend beyond their images by up to this much
LONGEST = 1 << 20  # pixels; OpenCV reads no image with a longer side
SURROGATE = re.compile('[\ud800-\udfff]')
LARGEST = 1e10  # pixels; COCO's evaluation ignores objects of a larger area


@dataclass(frozen=True)
class CocoUse:
    """How a config reads an annotation file.

    Attributes:
        file: the annotation file.
        image_folder: the folder that image names are relative to.
        classes: the names of the classes, in the order of their labels.
        with_mask: whether masks are read.
        training: whether images are filtered, as in training.
        filter_empty: whether images without annotations are left out of training.
        min_size: images with a shorter side are left out of training.
    """

    file: str
    image_folder: str
    classes: tuple[str, ...]
    with_mask: bool = False
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


def read_coco(file: str, annotated: bool = True) -> dict[str, list]:
    """Read an annotation file, and check that it has COCO's three lists.

    Args:
        file: the file.
        annotated: if False, the list of annotations may be absent, as in files for a test server.

    Raises:
        DataError: the file is not JSON, or lacks one of the lists.
    """
    try:
        # pycocotools too needs UTF-8 without a byte-order mark.
        content = json.loads(Path(file).read_text('utf-8'))
    except OSError as error:
        raise DataError(f'{file} cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f'{file} is not valid JSON: {error}; expected uncompressed text in UTF-8 without a '
            'byte-order mark'
        ) from error
    if isinstance(content, dict) and not annotated:
        content.setdefault('annotations', [])
    lists = ('images', 'annotations', 'categories')
    lacking = [
        key
        for key in lists
        if not isinstance(content, dict)
        or not isinstance(content.get(key), list)
        or not all(isinstance(entry, dict) for entry in content[key])
    ]
    if lacking:
        raise DataError(
            f'{file} is not a COCO annotation file: it has no list of objects called '
            f'{" or ".join(lacking)}'
        )
    return content


def add_iscrowd(ann_file: str, out: str) -> int:
    """Write a copy of an annotation file with ``"iscrowd": 0`` where that is missing.

    Returns:
        The number of annotations that it was added to.

    Raises:
        UserError: the file is missing or not a COCO file, or the output exists.
    """
    if not Path(ann_file).is_file():
        raise MissingFileError(f'{ann_file}: there is no such file')
    if os.path.exists(out):
        raise UserError(f'{out} exists; give another name, or move it away first')
    content = read_coco(ann_file)
    lacking = [a for a in content['annotations'] if 'iscrowd' not in a]
    for annotation in lacking:
        annotation['iscrowd'] = 0
    write_whole(out, json.dumps(content))
    return len(lacking)


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
                found(ERROR, f'ids of {name} that mix text and numbers', _some([*map(repr, keys)]))
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
        if not is_id(category.get('id')) or not _is_text(category.get('name')):
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
            f'classes {_some(use.classes)}; categories {_some(list(by_id.values()))} '
            '(--classes-from ANN uses the categories)',
        )
    elif taken != list(use.classes[: len(taken)]):
        wrong = next(i for i, name in enumerate(taken) if name != use.classes[i])
        found(
            ERROR,
            'labels would mean other classes',
            f'label {wrong} is {use.classes[wrong]!r} in the config, but mmdet numbers the '
            f'categories in the order of the file, where it is {taken[wrong]!r}: give '
            f'metainfo.classes in the order of the file ({_some(taken)})',
        )
    elif len(taken) < len(use.classes):
        missing = use.classes[len(taken) :]
        found(WARNING, 'class of the config that is not a category of the file', _some(missing))
    others = [name for name in by_id.values() if name not in use.classes]
    if taken and others:
        found(NOTE, 'category that is not a class of the config, left out', _some(others))
    return by_id


def _judge_image(image: dict, known: Mapping[Any, dict]) -> Judgement | None:
    lacking = [key for key in IMAGE_FIELDS if key not in image]
    if lacking:
        return ERROR, 'image lacks a field', ', '.join(lacking)
    if not is_id(image['id']) or not _is_text(image['file_name']):
        return ERROR, 'image id or file name of the wrong type', str(image)[:80]
    if image['id'] in known:
        return ERROR, 'image id used twice', image['file_name']
    size = image['width'], image['height']
    if not all(_is_number(side) and 1 <= side <= LONGEST for side in size):
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
    if not all(_is_number(number) for number in (*box, area)):
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
        yield from _judge_mask(annotation.get('segmentation'), image['width'], image['height'])


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


def _judge_mask(mask: Any, width: float, height: float) -> Iterator[Judgement]:
    if not mask:
        yield ERROR, 'mask missing', 'the config reads masks'
    elif isinstance(mask, list):
        if not all(isinstance(polygon, list) for polygon in mask):
            yield ERROR, 'mask is not a list of polygons', f'{mask!r}'[:80]
        elif not all(_is_number(number) for polygon in mask for number in polygon):
            yield ERROR, 'polygon with a value that is not a number', f'{mask!r}'[:80]
        elif any(abs(number) > LONGEST for polygon in mask for number in polygon):
            yield ERROR, 'polygon larger than any image', f'{mask!r}'[:80]
        else:
            bad = sum(len(polygon) < 6 or len(polygon) % 2 == 1 for polygon in mask)
            if bad == len(mask):
                yield WARNING, 'no polygon of three corners, instance ignored', f'{mask!r}'[:80]
            elif bad:
                yield WARNING, 'polygon without three corners, left out', f'{bad} of {len(mask)}'
    elif not isinstance(mask, dict) or not {'size', 'counts'} <= set(mask):
        yield ERROR, 'mask is neither polygons nor RLE', f'{mask!r}'[:80]
    elif mask['size'] != [height, width]:
        yield ERROR, 'mask of another size', f'{mask["size"]}, image [{height}, {width}]'
    elif isinstance(mask['counts'], list):
        whole = all(isinstance(run, int) and run >= 0 for run in mask['counts'])
        if not whole or sum(mask['counts']) != width * height:
            yield ERROR, 'mask whose runs do not fill the image', f'size {mask["size"]}'
    elif not isinstance(mask['counts'], str):
        yield WARNING, 'mask without runs, instance ignored', f'{mask!r}'[:80]


def judge_compressed_mask(annotation: dict) -> Judgement | None:
    """Check that the runs of a compressed RLE fill its size; None if so, and for other masks.

    If they do not, pycocotools silently reads past their end.
    """
    mask = annotation.get('segmentation')
    if not isinstance(mask, dict) or not isinstance(mask.get('counts'), str):
        return None
    runs = _decompress(mask['counts'])
    if min(runs, default=0) < 0 or sum(runs) != math.prod(mask['size']):
        return ERROR, 'mask whose runs do not fill the image', f'size {mask["size"]}'
    return None


def _decompress(counts: str) -> list[int]:
    # The format of pycocotools' rleToString, which has no function to read it: 5 bits per
    # character, offset by 48; the sixth bit marks a continuation; from the fourth run on, the
    # difference from the last run but one.
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


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
        found(WARNING, 'class without any annotation', _some(unused))
    if not (left if use.training else result.images):
        found(
            ERROR,
            'no image is left',
            f'of {result.num_images}, after leaving out images without annotations of '
            f'{_some(use.classes)} and images smaller than {use.min_size} pixels'
            if use.training
            else 'the file lists none',
        )


def _names_in(folder: str) -> frozenset[str]:
    # Listing a folder is much cheaper than checking each file, above all on a network drive.
    try:
        return frozenset(os.listdir(folder))
    except (OSError, ValueError):  # ValueError: a name with a null character
        return frozenset()


def is_id(value: Any) -> bool:
    """Whether images, annotations or categories can have it as their id."""
    # numpy, with which pycocotools sorts them, holds no larger whole numbers.
    return _is_text(value) or (_is_number(value) and -(2**63) <= value < 2**63)


def _is_text(value: Any) -> bool:
    # JSON can have halves of surrogate pairs, which neither files nor terminals can.
    return isinstance(value, str) and (value.isascii() or not SURROGATE.search(value))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf


def _some(names: Any, most: int = 6) -> str:
    return ', '.join(names[:most]) + (f', … ({len(names)})' if len(names) > most else '')
