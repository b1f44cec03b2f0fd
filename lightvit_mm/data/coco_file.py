"""COCO annotation files: reading them, and what their values may be."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

from lightvit_mm.data.findings import DataError
from lightvit_mm.errors import MissingFileError, UserError
from lightvit_mm.files import write_whole

LONGEST = 1 << 20  # pixels; OpenCV reads no image with a longer side
SURROGATE = re.compile('[\ud800-\udfff]')


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


def is_id(value: Any) -> bool:
    """Whether images, annotations or categories can have it as their id."""
    # numpy, with which pycocotools sorts them, holds no larger whole numbers.
    return is_text(value) or (is_number(value) and -(2**63) <= value < 2**63)


def is_text(value: Any) -> bool:
    """Whether it is text that files and terminals can hold."""
    # JSON can have halves of surrogate pairs, which neither files nor terminals can.
    return isinstance(value, str) and (value.isascii() or not SURROGATE.search(value))


def is_number(value: Any) -> bool:
    """Whether it is a finite number; booleans are none."""
    return type(value) in (int, float) and abs(value) < math.inf
