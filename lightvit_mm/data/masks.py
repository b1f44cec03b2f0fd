"""Label maps out of colour-coded masks: the work of tools/convert_masks.py."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from lightvit_mm.data.classes_file import IGNORED, Classes, Colour, read_classes
from lightvit_mm.data.findings import DataError
from lightvit_mm.errors import MissingFileError
from lightvit_mm.files import IMAGE_SUFFIXES, check_output_folder, write_whole

SIGN = '.label_maps_of_lightvit_mm'  # an empty file in the folders that were written
SHOWN = 5  # most colours or files in a message


def convert_masks(
    masks: str, out: str, classes_from: str, ignored: Sequence[Colour] = (), others: bool = False
) -> int:
    """Write an 8-bit label map, with the colours as its palette, for every mask in a folder.

    The label of a pixel is the place of its colour in the palette of the classes, one more if their
    file says ``"reduce_zero_label": true``. All masks are read before the first label map is
    written.

    Args:
        masks: folder of the masks, searched with the folders in it.
        out: folder for the label maps, PNG files of the same names.
        classes_from: file of the names and colours, see `read_classes`.
        ignored: colours that get the label 255, which is not learnt.
        others: give it to all other colours too.

    Returns:
        The number of label maps.

    Raises:
        UserError: the folder has no masks, one cannot be read or has another colour, two would
            have the same label map, the classes have no colours, or ``out`` cannot be written.
    """
    root = Path(masks)
    if not root.is_dir():
        raise MissingFileError(f'{masks} is not a folder')
    classes = read_classes(classes_from)
    if classes.palette is None:
        raise DataError(f'--classes-from {classes_from} has names but no colours')
    files = sorted(file for file in root.rglob('*') if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DataError(f'{masks} has no masks: files ending in {" ".join(IMAGE_SUFFIXES)}')
    targets = {file: Path(out) / file.relative_to(root).with_suffix('.png') for file in files}
    twice = [str(path) for path, count in Counter(targets.values()).items() if count > 1]
    if twice:
        raise DataError(f'two masks would be written to {twice[0]}; rename one')
    check_output_folder(out, 'OUT', [SIGN], [masks])
    taken = [path for path in targets.values() if path.exists()]
    if taken and not Path(out, SIGN).exists():
        raise DataError(f'OUT {out}: {taken[0]} would be replaced; give a new or empty folder')
    table = _table(classes, ignored, IGNORED if others else None)
    unknown: Counter[Colour] = Counter()
    where: dict[Colour, Path] = {}
    for file in track(files, 'reading the colours'):
        for colour, count in _colours(file).items():
            if colour not in table and not others:
                unknown[colour] += count
                where.setdefault(colour, file)
    if unknown:
        raise DataError(_unknown(unknown, where, classes_from))
    Path(out).mkdir(parents=True, exist_ok=True)
    (Path(out) / SIGN).touch()
    for file in track(files, 'writing label maps'):
        write_whole(targets[file], _png(_labels(_rgb(file), table), classes))
    return len(files)


def _table(
    classes: Classes, ignored: Sequence[Colour], other: int | None
) -> dict[Colour | None, int]:
    """The label of each colour; None stands for all others."""
    first = int(classes.reduce_zero_label)
    for colour in ignored:
        if colour in (classes.palette or ()) or not all(0 <= value <= 255 for value in colour):
            raise DataError(
                f'--ignore {" ".join(map(str, colour))}: give a colour, 0 to 255, that no class has'
            )
    table: dict[Colour | None, int] = dict.fromkeys(ignored, IGNORED)
    table.update({colour: label for label, colour in enumerate(classes.palette or (), first)})
    if other is not None:
        table[None] = other
    return table


def _rgb(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert('RGB'))
    except Exception as error:  # a damaged byte can raise anything in Pillow
        raise DataError(f'{file} cannot be read: {type(error).__name__}: {error}') from error


def _numbers(rgb: np.ndarray) -> np.ndarray:
    """One number for each colour."""
    return rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)


def _colour(number: int) -> Colour:
    return number >> 16, number >> 8 & 255, number & 255


def _colours(file: Path) -> dict[Colour, int]:
    numbers, counts = np.unique(_numbers(_rgb(file)), return_counts=True)
    return {_colour(n): c for n, c in zip(numbers.tolist(), counts.tolist(), strict=True)}


def _labels(rgb: np.ndarray, table: dict[Colour | None, int]) -> np.ndarray:
    numbers, places = np.unique(_numbers(rgb), return_inverse=True)
    labels = [table.get(_colour(n), table.get(None, IGNORED)) for n in numbers.tolist()]
    return np.array(labels, dtype=np.uint8)[places].reshape(rgb.shape[:2])


def _png(labels: np.ndarray, classes: Classes) -> bytes:
    image = Image.fromarray(labels)
    black = [(0, 0, 0)]
    colours = black * classes.reduce_zero_label + list(classes.palette or ())
    colours += black * (IGNORED - len(colours)) + [(255, 255, 255)]
    image.putpalette([part for colour in colours for part in colour])
    content = io.BytesIO()
    image.save(content, 'PNG')
    return content.getvalue()


def _unknown(unknown: Counter[Colour], where: dict[Colour, Path], classes_from: str) -> str:
    listed = '; '.join(
        f'{" ".join(map(str, colour))} ({count} pixels, first in {where[colour]})'
        for colour, count in unknown.most_common(SHOWN)
    )
    more = f'; and {len(unknown) - SHOWN} more' if len(unknown) > SHOWN else ''
    jpeg = any(file.suffix.lower() in ('.jpg', '.jpeg') for file in where.values())
    return (
        f'{len(unknown)} colours are not in the palette of {classes_from}: {listed}{more}. Nothing '
        'was written. Add them to the file, give those without a class as --ignore R G B, or all '
        'others as --ignore-others'
        + ('. JPEG changes colours: masks saved so have many that nobody drew' if jpeg else '')
    )
