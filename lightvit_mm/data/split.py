"""Splitting a COCO annotation file in two, for tools/split_coco.py."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from lightvit_mm.data.coco_file import is_id, read_coco
from lightvit_mm.data.findings import DataError
from lightvit_mm.errors import MissingFileError, UserError
from lightvit_mm.files import write_whole


def split_coco(ann_file: str, val_share: float, seed: int = 0) -> dict[Path, int]:
    """Draw images for validation, and write ``<name>_train.json`` and ``<name>_val.json``.

    Annotations follow their images; everything else in the file goes into both. A warning counts
    annotations that belong to no image, which go into neither.

    Args:
        ann_file: a COCO annotation file.
        val_share: part of the images for validation, in (0, 1).
        seed: seed of the random draw.

    Returns:
        The number of images in each of the two files.

    Raises:
        UserError: the file is missing, not a COCO file or has fewer than two images, an image has
            no id of its own, the share is out of range, or an output file exists with other
            content.
    """
    source = Path(ann_file)
    if not source.is_file():
        raise MissingFileError(f'{ann_file}: there is no such file')
    if not 0 < val_share < 1:
        raise UserError(f'--val {val_share}: give a part between 0 and 1, such as 0.2')
    content = read_coco(ann_file)
    images = content['images']
    known: set[Any] = set()
    for image in images:
        key = image.get('id')
        if not is_id(key) or key in known:
            raise DataError(
                f'{ann_file}: image {image.get("file_name")} has the id {key!r}, which is '
                f'{"used twice" if is_id(key) else "no number or text"}, so that its annotations '
                'cannot follow it; give every image an id of its own'
            )
        known.add(key)
    if len(images) < 2:
        raise UserError(f'{ann_file} has {len(images)} images: two parts need at least 2')
    number = min(max(round(val_share * len(images)), 1), len(images) - 1)
    chosen = set(random.Random(seed).sample(range(len(images)), number))
    parts = {
        'train': [image for i, image in enumerate(images) if i not in chosen],
        'val': [image for i, image in enumerate(images) if i in chosen],
    }
    annotations = [
        a for a in content['annotations'] if is_id(a.get('image_id')) and a['image_id'] in known
    ]
    if len(annotations) < len(content['annotations']):
        left_out = len(content['annotations']) - len(annotations)
        print(f'warning: {left_out} annotations of {ann_file} belong to no image and are left out')
    texts, made = {}, {}
    for part, kept in parts.items():
        members = {image['id'] for image in kept}
        mine = [a for a in annotations if a['image_id'] in members]
        file = source.with_name(f'{source.stem}_{part}.json')
        texts[file] = json.dumps({**content, 'images': kept, 'annotations': mine})
        made[file] = len(kept)
        if file.exists() and file.read_bytes() != texts[file].encode():
            raise UserError(f'{file} exists and holds something else; move it away first')
    for file, text in texts.items():
        write_whole(file, text)
    return made
