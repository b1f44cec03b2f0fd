"""The shapes data set: small synthetic scenes for trying a backbone without a download.

Scenes of overlapping disks, squares, triangles and stars on textured backgrounds, as COCO instance
annotations and as mmseg label maps:

    ROOT/images/{train,val}/000000.png              RGB
    ROOT/annotations/instances_{train,val}.json     COCO: boxes, polygons, areas, crowds
    ROOT/semantic/{train,val}/000000.png            uint8: 0 background, 1.. the classes
    ROOT/manifest.json                              parameters and counts; written last

Annotations describe what is visible. Colours and textures do not depend on the class and have the
same distribution as the background's: classes differ only in outline. Crowd regions have their
class in the label maps; there is no ignore label (255).

All arithmetic is in integers, on a seeded PCG64: pixels, labels and JSON are the same on every
machine. The bytes of the PNG files depend on the codec.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lightvit_mm.shapes.raster import run_lengths, tight_box, trace_polygons
from lightvit_mm.shapes.scene import CLASSES, Difficulty, Instance, Scene, draw_scene

__all__ = [
    'CLASSES', 'PALETTE', 'SEMANTIC_CLASSES', 'SEMANTIC_PALETTE', 'SIZES', 'Difficulty', 'Scene',
    'ShapesSummary', 'SplitCounts', 'coco_annotations', 'draw_scene', 'make_shapes',
]  # fmt: skip

PALETTE: tuple[tuple[int, int, int], ...] = (
    (230, 97, 1), (94, 60, 153), (26, 150, 65), (202, 0, 82)
)  # fmt: skip
"""RGB in which to draw each of `CLASSES`; the images themselves do not use it."""
SEMANTIC_CLASSES: tuple[str, ...] = ('background', *CLASSES)
"""Meanings of the values in the label maps."""
SEMANTIC_PALETTE: tuple[tuple[int, int, int], ...] = ((0, 0, 0), *PALETTE)
"""RGB in which to draw each of `SEMANTIC_CLASSES`."""
SIZES: tuple[str, ...] = ('small', 'medium', 'large')
"""COCO's sizes: visible area under 32^2 px, up to 96^2 px, and above."""

SPLITS: tuple[str, ...] = ('train', 'val')

_FORMAT = 'lightvit_mm.shapes'
# Raise it with any change to the data that a given set of parameters produces.
_VERSION = 1
_MANIFEST = 'manifest.json'
_SMALLEST_IMAGE, _LARGEST_IMAGE = 64, 2048


@dataclass(frozen=True)
class SplitCounts:
    """Contents of one split."""

    images: int
    """All images."""
    empty_images: int
    """Images without any annotation."""
    per_class: dict[str, int]
    """Objects of each class, crowds not counted."""
    per_size: dict[str, int]
    """Objects of each of `SIZES`, crowds not counted."""
    crowds: int
    """Crowd annotations."""


@dataclass(frozen=True)
class ShapesSummary:
    """Contents and location of a data set; ``str()`` describes it in two lines."""

    root: Path
    """The data set's directory, as given."""
    image_size: int
    """Height and width of the images, px."""
    seed: int
    """The seed it was made with."""
    reused: bool
    """Whether it existed already."""
    train: SplitCounts
    """The training images."""
    val: SplitCounts
    """The validation images."""

    def __str__(self) -> str:
        both = (self.train, self.val)
        classes = ', '.join(f'{sum(s.per_class[name] for s in both)} {name}' for name in CLASSES)
        sizes = ', '.join(f'{sum(s.per_size[name] for s in both)} {name}' for name in SIZES)
        return (
            f'{self.root}: {self.train.images} train and {self.val.images} val images of '
            f'{self.image_size} px, seed {self.seed}'
            f'{" (there already, not made again)" if self.reused else ""}\n'
            f'objects: {classes}; {sizes}; {sum(s.crowds for s in both)} crowds, '
            f'{sum(s.empty_images for s in both)} images without any'
        )


def make_shapes(
    root: str | os.PathLike[str],
    num_train: int = 2400,
    num_val: int = 100,
    image_size: int = 128,
    seed: int = 0,
    *,
    force: bool = False,
    difficulty: Difficulty | None = None,
) -> ShapesSummary:
    """Make the data set, unless it exists already.

    Everything is written into a hidden directory next to ``root``, which is renamed at the end:
    an interrupted run leaves nothing under ``root``. Image i of a split does not depend on how
    many images are made.

    Args:
        root: Directory of the data set. It must be absent or empty, or hold the same data set,
            which is then left unchanged.
        num_train: Training images, >= 1.
        num_val: Validation images, >= 1.
        image_size: Height and width in px, 64..2048. Large objects, whose sizes are COCO's, need
            about 160.
        seed: 0 .. 2^32 - 1.
        force: Replace what is at ``root`` if it is a shapes data set and nothing else.
        difficulty: Defaults to `Difficulty()`.

    Returns:
        The contents of the data set.

    Raises:
        ValueError: An argument is out of range.
        FileExistsError: ``root`` holds something else, or an incomplete data set.
    """
    difficulty = difficulty or Difficulty()
    _check_range('num_train', num_train, 1, 10**6)
    _check_range('num_val', num_val, 1, 10**6)
    _check_range('image_size', image_size, _SMALLEST_IMAGE, _LARGEST_IMAGE)
    _check_range('seed', seed, 0, 2**32 - 1)
    parameters = {
        'num_train': num_train,
        'num_val': num_val,
        'image_size': image_size,
        'seed': seed,
        # Through JSON and back, as in the manifest: tuples become lists.
        'difficulty': json.loads(json.dumps(asdict(difficulty))),
    }
    # A link is followed, so that the hidden directory lies on the same disk as the data.
    target = Path(root).resolve()
    found = _existing_counts(target, Path(root), parameters, force)
    counts = found
    if counts is None:
        with _replacing(target) as directory:
            counts = {
                split: _write_split(directory, split, number, parameters, difficulty)
                for split, number in (('train', num_train), ('val', num_val))
            }
            manifest = {
                'format': _FORMAT,
                'version': _VERSION,
                'parameters': parameters,
                'counts': {split: asdict(counts[split]) for split in SPLITS},
            }
            _write_json(directory / _MANIFEST, manifest, indent=2)
    return ShapesSummary(
        Path(root), image_size, seed, found is not None, counts['train'], counts['val']
    )


def coco_annotations(
    instances: tuple[Instance, ...], image_id: int, first_id: int
) -> list[dict[str, Any]]:
    """A scene's instances as COCO annotations, exact to the pixel.

    Args:
        instances: The visible parts, each with at least one pixel.
        image_id: COCO's id of the image.
        first_id: Id of the first annotation; the others follow.

    Returns:
        One annotation per instance: ``bbox`` is x, y, width, height in px around the visible
        pixels, ``area`` is their number, and ``segmentation`` is a list of polygons along pixel
        edges or, for a crowd, uncompressed run lengths.
    """
    annotations = []
    for number, instance in enumerate(instances, start=first_id):
        segmentation: Any
        if instance.is_crowd:
            segmentation = {
                'counts': run_lengths(instance.mask), 'size': list(instance.mask.shape)
            }  # fmt: skip
        else:
            segmentation = trace_polygons(instance.mask)
        annotations.append({
            'id': number,
            'image_id': image_id,
            'category_id': instance.category + 1,
            'bbox': list(tight_box(instance.mask)),
            'area': int(instance.mask.sum()),
            'iscrowd': int(instance.is_crowd),
            'segmentation': segmentation,
        })  # fmt: skip
    return annotations


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f'{name} is {value}, but must be {low}..{high}')


def _existing_counts(
    target: Path, shown: Path, parameters: dict[str, Any], force: bool
) -> dict[str, SplitCounts] | None:
    """Return the counts of the wanted set if it exists, None if it may be written; else raise."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    manifest = _read_manifest(target)
    if manifest is None:
        raise FileExistsError(
            f'{shown} exists and is not a shapes data set (it has no {_MANIFEST} of one), so it '
            'is left alone, even with --force: give another path, or move it away'
        )
    if force:
        strangers = sorted(
            {entry.name for entry in target.iterdir()}
            - {'images', 'annotations', 'semantic', _MANIFEST}
        )
        if strangers:
            raise FileExistsError(
                f'{shown} holds a shapes data set and other things, which --force would delete: '
                f'move {", ".join(strangers[:3])} away, or give another path'
            )
        return None
    remedy = 'give --force (force=True) to replace it, or another path'
    wanted = {'version': _VERSION, **parameters}
    there = {'version': manifest.get('version'), **manifest.get('parameters', {})}
    differences = [
        f'{name} is {there.get(name)!r} there, {value!r} was asked for'
        for name, value in wanted.items()
        if there.get(name) != value
    ]
    if differences:
        raise FileExistsError(
            f'{shown} holds another shapes data set: {"; ".join(differences)}: {remedy}'
        )
    for split in SPLITS:
        names = set(_image_names(parameters[f'num_{split}']))
        for kind in ('images', 'semantic'):
            missing = names - {path.name for path in target.glob(f'{kind}/{split}/*.png')}
            if missing:
                raise FileExistsError(
                    f'{shown} is incomplete: {len(missing)} files are missing, '
                    f'{kind}/{split}/{min(missing)} among them: {remedy}'
                )
        if not _annotation_file(target, split).is_file():
            raise FileExistsError(
                f'{shown} is incomplete: {_annotation_file(shown, split)} is missing: {remedy}'
            )
    return {split: SplitCounts(**manifest['counts'][split]) for split in SPLITS}


def _read_manifest(target: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((target / _MANIFEST).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    ours = isinstance(manifest, dict) and manifest.get('format') == _FORMAT
    return manifest if ours else None


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yield a new directory that replaces ``target`` if the block completes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    token = uuid.uuid4().hex[:8]
    partial = target.with_name(f'.{target.name}.partial-{token}')
    partial.mkdir()
    try:
        yield partial
        if not target.exists():
            partial.rename(target)
        else:
            replaced = target.with_name(f'.{target.name}.replaced-{token}')
            target.rename(replaced)
            partial.rename(target)
            shutil.rmtree(replaced)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_split(
    directory: Path, split: str, number: int, parameters: dict[str, Any], difficulty: Difficulty
) -> SplitCounts:
    """Write images, label maps and annotations of one split."""
    image_size, seed = parameters['image_size'], parameters['seed']
    images, labels = directory / 'images' / split, directory / 'semantic' / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, name in enumerate(_image_names(number)):
        scene = draw_scene(seed, SPLITS.index(split), index, image_size, difficulty)
        # OpenCV expects BGR.
        _write_png(images / name, scene.image[:, :, ::-1])
        _write_png(labels / name, scene.labels)
        records.append({'id': index, 'file_name': name, 'height': image_size, 'width': image_size})
        # From 1: pycocotools takes a match with annotation 0 for no match.
        annotations += coco_annotations(scene.instances, index, len(annotations) + 1)
        _show_progress(split, index + 1, number)
    document = {
        'info': {'description': f'lightvit_mm shapes, {split}', 'version': str(_VERSION)},
        'licenses': [],
        'categories': [
            {'id': number, 'name': name, 'supercategory': 'shape'}
            for number, name in enumerate(CLASSES, start=1)
        ],
        'images': records,
        'annotations': annotations,
    }
    annotation_file = _annotation_file(directory, split)
    annotation_file.parent.mkdir(exist_ok=True)
    _write_json(annotation_file, document)
    return _count(number, annotations)


def _count(number: int, annotations: list[dict[str, Any]]) -> SplitCounts:
    per_class, per_size = dict.fromkeys(CLASSES, 0), dict.fromkeys(SIZES, 0)
    for annotation in annotations:
        if not annotation['iscrowd']:
            per_class[CLASSES[annotation['category_id'] - 1]] += 1
            area = annotation['area']
            per_size['small' if area < 32**2 else 'medium' if area <= 96**2 else 'large'] += 1
    return SplitCounts(
        images=number,
        empty_images=number - len({annotation['image_id'] for annotation in annotations}),
        per_class=per_class,
        per_size=per_size,
        crowds=sum(annotation['iscrowd'] for annotation in annotations),
    )


def _image_names(number: int) -> Iterator[str]:
    return (f'{index:06d}.png' for index in range(number))


def _annotation_file(root: Path, split: str) -> Path:
    return root / 'annotations' / f'instances_{split}.json'


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    # Noise hardly compresses: a higher level costs time and saves nothing.
    encoded, data = cv2.imencode('.png', pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not encoded:
        raise OSError(f'OpenCV could not encode {path.name} as PNG')
    path.write_bytes(data.tobytes())


def _write_json(path: Path, document: dict[str, Any], indent: int | None = None) -> None:
    separators = (',', ':') if indent is None else None
    text = json.dumps(document, sort_keys=True, indent=indent, separators=separators)
    path.write_text(text + '\n', encoding='utf-8', newline='\n')


def _show_progress(split: str, done: int, number: int) -> None:
    if sys.stderr.isatty():
        end = '\n' if done == number else ''
        print(f'\rdrawing {split} scenes: {done}/{number}', end=end, file=sys.stderr, flush=True)
