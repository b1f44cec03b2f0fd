"""Checks of the masks in a COCO annotation file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lightvit_mm.data.coco_file import LONGEST, is_number
from lightvit_mm.data.findings import ERROR, WARNING, Judgement


def reads_polygons_only(transform: Mapping[str, Any]) -> bool:
    """Whether a transform of mmdet reads masks, and ignores objects that have run lengths."""
    return bool(transform.get('with_mask')) and not transform.get('poly2mask', True)


def has_run_lengths(annotation: Mapping[str, Any]) -> bool:
    """Whether the mask of an annotation is RLE; mmdet ignores crowds, which COCO stores so."""
    return isinstance(annotation.get('segmentation'), dict) and not annotation.get('iscrowd')


def judge_mask(mask: Any, width: float, height: float) -> Iterator[Judgement]:
    """Check an annotation's ``"segmentation"``, polygons or RLE, against the size of its image."""
    if not mask:
        yield ERROR, 'mask missing', 'the config reads masks'
    elif isinstance(mask, list):
        if not all(isinstance(polygon, list) for polygon in mask):
            yield ERROR, 'mask is not a list of polygons', f'{mask!r}'[:80]
        elif not all(is_number(number) for polygon in mask for number in polygon):
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
    runs = decompress(mask['counts'])
    if min(runs, default=0) < 0 or sum(runs) != math.prod(mask['size']):
        return ERROR, 'mask whose runs do not fill the image', f'size {mask["size"]}'
    return None


def decompress(counts: str) -> list[int]:
    """The lengths of the runs of a compressed RLE."""
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
