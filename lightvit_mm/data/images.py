"""Checks of image files and label maps, which are opened and decoded as in training."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import mmcv
import numpy as np
from PIL import ExifTags, Image

from lightvit_mm.data.config import resize_scale
from lightvit_mm.data.findings import ERROR, NOTE, WARNING, Judgement

Load = Callable[[dict], dict | None]
SMALL_SIDE = 8  # pixels; the coarsest level of most backbones is then a single position
LONG_SIDES = 50  # times the short side
LABEL_MODES = ('L', 'P', '1')  # of Pillow
EXPECTED = 'expected 8 bits per pixel, the number of a class'
MOST_COLOURS = 'it has more than 256 colours, as a photo or a JPEG of colour-coded masks has'
CONVERT = 'python tools/convert_masks.py MASKS OUT --classes-from FILE'
SUFFIXES = {
    'JPEG': ('.jpg', '.jpeg', '.jpe', '.jfif'),
    'MPO': ('.jpg', '.jpeg', '.mpo'),  # some cameras and phones name it .jpg
    'PNG': ('.png',),
    'TIFF': ('.tif', '.tiff'),
    'BMP': ('.bmp', '.dib'),
    'WEBP': ('.webp',),
    'GIF': ('.gif',),
}


@dataclass
class LookedAt:
    """An image file after opening it.

    Attributes:
        size: width and height as training gets them; None if the image cannot be loaded.
        stored_size: width and height before a rotation that EXIF asks for.
        orientation: EXIF's number of that rotation; 1 is none.
        judgements: what was found.
    """

    size: tuple[int, int] | None = None
    stored_size: tuple[int, int] | None = None
    orientation: int = 1
    judgements: list[Judgement] = field(default_factory=list)


def look_at_image(path: str, load: Load) -> LookedAt:
    """Open an image as training will.

    Args:
        path: the file.
        load: the transform of the pipeline that loads it, e.g. mmcv's ``LoadImageFromFile``.
    """
    seen = LookedAt()
    if not os.path.exists(path):
        seen.judgements = [(ERROR, 'image file missing', '')]
        return seen
    if not os.path.getsize(path):
        seen.judgements = [(ERROR, 'image file empty', '0 bytes')]
        return seen
    try:
        with Image.open(path) as image:
            seen.stored_size = image.size
            seen.judgements = list(_judge_format(image, path))
            # OpenCV may silently fill the rest of a truncated file with grey.
            image.load()
            seen.orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except OSError as error:
        if seen.stored_size is not None:
            seen.judgements.append((ERROR, 'image file damaged or cut short', str(error)))
    except Image.DecompressionBombError:
        pass  # Pillow's limit; the loader has another one
    except Exception as error:  # a damaged byte can raise anything in Pillow
        seen.judgements.append((ERROR, 'image file damaged', f'{type(error).__name__}: {error}'))
    try:
        loaded = load({'img_path': path})
    except Exception as error:
        loaded = None
        reason = str(error).strip().split('\n')[0]
    else:
        reason = 'the loader returned nothing'
    if loaded is None:
        if not any(severity == ERROR for severity, *_ in seen.judgements):
            seen.judgements.append((ERROR, 'image that cannot be decoded', reason))
        return seen
    height, width = loaded['img'].shape[:2]
    seen.size = width, height
    if min(width, height) < SMALL_SIDE:
        seen.judgements.append((WARNING, 'tiny image', f'{width} x {height}'))
    if max(width, height) > LONG_SIDES * min(width, height):
        seen.judgements.append((WARNING, 'very long image', f'{width} x {height}'))
    return seen


def judge_resized(seen: LookedAt, resize: Mapping[str, Any]) -> Judgement | None:
    """Check whether a ``Resize`` that keeps the aspect ratio would leave no pixel."""
    scale = resize_scale(resize)
    if seen.size is None or not resize.get('keep_ratio') or scale is None:
        return None
    resized = mmcv.rescale_size(seen.size, scale)
    if min(resized) > 0:
        return None
    detail = f'{seen.size[0]} x {seen.size[1]} would become {resized[0]} x {resized[1]}'
    return ERROR, 'image that resizing would reduce to nothing', detail


def _judge_format(image: Image.Image, path: str) -> Iterator[Judgement]:
    form, mode = str(image.format), image.mode
    expected = SUFFIXES.get(form)
    if expected and not path.lower().endswith(expected):
        yield NOTE, 'image with the suffix of another format', form
    # Pillow reveals 16-bit colours only in how it unpacks them.
    tiles = getattr(image, 'tile', ())
    unpacked = [tile[3] if isinstance(tile[3], str) else tile[3][0] for tile in tiles]
    if mode.startswith('I') or (form in ('PNG', 'TIFF') and '16' in str(unpacked)):
        yield WARNING, '16-bit image, cut to 8 bits', mode
    if mode == 'CMYK':
        yield NOTE, 'CMYK image, converted', ''
    if mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info:
        yield NOTE, 'image with transparency, which is dropped', mode
    if mode in ('1', 'L', 'LA'):
        yield NOTE, 'grey image, repeated three times', mode


def judge_size(seen: LookedAt, annotated: tuple[int, int], load: Load) -> Judgement | None:
    """Compare an image with the width and height that its annotations were made for."""
    if seen.size is None:
        return None
    turned = seen.orientation > 1 and getattr(load, 'color_type', 'color') in ('color', 'grayscale')
    if seen.size == annotated:
        # Unless a rotation swaps unequal sides, the size does not show whether it was applied.
        if turned and (seen.orientation < 5 or seen.size[0] == seen.size[1]):
            detail = f'orientation {seen.orientation}: loading applies it; check the boxes'
            return WARNING, 'EXIF rotation that keeps the size', detail
        return (NOTE, 'EXIF rotation, applied as in the annotations', '') if turned else None
    detail = (
        f'{seen.size[0]} x {seen.size[1]} when loaded, '
        f'{annotated[0]} x {annotated[1]} in the annotations'
    )
    if turned and seen.stored_size == annotated:
        return (
            ERROR,
            'annotations made without the EXIF rotation that loading applies',
            f"{detail}; give LoadImageFromFile color_type='color_ignore_orientation'",
        )
    return ERROR, 'image of another size than its annotations', detail


def label_map_fault(path: str) -> str:
    """Say why a file is not a label map, which has the number of a class in 8 bits per pixel.

    Returns:
        The reason and what to do, `MOST_COLOURS` if it may be a photo; empty if it is a label map,
        or cannot be read, which `look_at_label_map` reports.
    """
    try:
        with Image.open(path) as image:
            if image.mode in LABEL_MODES:
                return ''
            mode = image.mode
            colours = image.convert('RGB').getcolors(256)
    except Exception:  # a damaged byte can raise anything in Pillow
        return ''
    if colours is None:
        return MOST_COLOURS
    if mode not in ('RGB', 'RGBA'):
        return f'it has pixels of the kind {mode}; {EXPECTED}'
    return f'it has {len(colours)} colours in place of numbers; {CONVERT} makes label maps of them'


def look_at_label_map(
    sample: Mapping[str, Any],
    load: Load,
    image_size: tuple[int, int] | None,
    num_classes: int,
    ignore_index: int,
) -> tuple[frozenset[int], list[Judgement]]:
    """Open a label map as training will.

    Args:
        sample: what the data set passes to its pipeline, with ``seg_map_path``.
        load: mmseg's ``LoadAnnotations`` of the pipeline.
        image_size: width and height of the image, if known.
        num_classes: labels go from 0 to one less, after any ``reduce_zero_label``.
        ignore_index: the label that is not learnt.

    Returns:
        The labels that it has, if it can be read, and what was found.
    """
    path = sample['seg_map_path']
    if not os.path.exists(path):
        return frozenset(), [(ERROR, 'label map missing', '')]
    try:
        with Image.open(path) as image:
            mode, form = image.mode, image.format
            image.load()
        loaded = load({**sample, 'seg_fields': []}) or {}
        labels = loaded['gt_seg_map']
    except Exception as error:
        reason = f'{type(error).__name__}: {str(error).strip().split(chr(10))[0]}'
        return frozenset(), [(ERROR, 'label map that cannot be read', reason)]
    if mode not in LABEL_MODES:
        detail = f'{mode}; {EXPECTED}' + (f' ({CONVERT})' if mode.startswith('RGB') else '')
        return frozenset(), [(ERROR, 'label map of colours or of more than 8 bits', detail)]
    if labels.ndim < 2:
        kind = 'label map of a single row or column, which mmseg cannot read'
        return frozenset(), [(ERROR, kind, '')]
    if labels.ndim > 2:
        detail = "read as colours; give LoadAnnotations imdecode_backend='pillow'"
        return frozenset(), [(ERROR, 'label map whose palette is not read as numbers', detail)]
    present = frozenset(np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist())
    judgements: list[Judgement] = []
    if form in ('JPEG', 'MPO'):
        kind = 'label map in JPEG, whose compression changes labels'
        judgements.append((WARNING, kind, 'save it as PNG'))
    height, width = labels.shape
    if image_size not in (None, (width, height)):
        detail = f'{width} x {height}, image {image_size[0]} x {image_size[1]}'
        judgements.append((ERROR, 'label map of another size than its image', detail))
    unknown = sorted(n for n in present if n >= num_classes and n != ignore_index)
    if unknown:
        detail = f'{unknown}; there are {num_classes} classes (0 to {num_classes - 1})'
        if unknown == [num_classes] and not sample.get('reduce_zero_label'):
            detail += (
                '. If they count from 1 and 0 is no class: "reduce_zero_label": true in the file '
                'of --classes-from'
            )
        else:
            detail += f'. If they are grey values that stand for classes: {CONVERT}'
        judgements.append((ERROR, 'label map with unknown labels', detail))
    elif present == {ignore_index}:
        kind = 'label map with nothing but the ignored label'
        judgements.append((NOTE, kind, str(ignore_index)))
    return present, judgements
