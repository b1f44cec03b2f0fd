"""The file of a segmentor's classes that `--classes-from` names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightvit_mm.data.findings import DataError
from lightvit_mm.errors import MissingFileError

Colour = tuple[int, int, int]
IGNORED = 255  # the label that mmseg neither learns nor evaluates
FORMS = (
    'expected JSON, {"classes": ["road", "water"], "palette": [[110, 193, 228], [226, 169, 41]]}, '
    'or a text file with one class a line, "road" or "road 110 193 228"'
)


class Classes(NamedTuple):
    """The classes of label maps.

    Attributes:
        names: their names; label 0 is the first, or label 1 with ``reduce_zero_label``.
        palette: their colours as RGB; None if the file has none.
        reduce_zero_label: whether label 0 is ignored and the classes start at label 1.
    """

    names: tuple[str, ...]
    palette: list[Colour] | None = None
    reduce_zero_label: bool = False


def read_classes(file: str | Path) -> Classes:
    """Read names and colours of classes from a JSON or text file.

    A JSON file has an object with a list ``"classes"``, and if you like ``"palette"`` with a colour
    for each and ``"reduce_zero_label"``; other entries are not read. A text file has a class in
    each line, a name and perhaps red, green and blue; blank lines and those with ``#`` in front are
    skipped.

    Raises:
        UserError: the file is missing or has another form, or its classes cannot be used: fewer
            than two or more than 255, the same name or colour twice, colours of some classes only.
    """
    if not Path(file).is_file():
        raise MissingFileError(f'--classes-from {file}: there is no such file')
    try:
        text = Path(file).read_text(encoding='utf-8-sig')
        is_json = text.lstrip().startswith(('{', '['))
        classes = _of_json(json.loads(text)) if is_json else _of_lines(text.splitlines())
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError as well
        raise DataError(f'--classes-from {file}: {error}; {FORMS}') from error
    for what, values in (('name', classes.names), ('colour', classes.palette or ())):
        twice = [str(value) for value, count in Counter(values).items() if count > 1]
        if twice:
            raise DataError(
                f'--classes-from {file}: classes of the same {what}: {", ".join(twice)}; make '
                'them different'
            )
    if not 2 <= len(classes.names) <= IGNORED:
        raise DataError(
            f'--classes-from {file} has {len(classes.names)} class(es), a segmentor needs 2 to '
            f'{IGNORED}. For one kind of object, the background is a class too: list it first'
        )
    return classes


def _of_json(content: Any) -> Classes:
    if not isinstance(content, dict):
        raise ValueError('not an object with a list "classes"')
    if 'categories' in content:
        raise ValueError('it is a COCO file, which is for detectors')
    names = content.get('classes')
    if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
        raise ValueError('"classes" is not a list of names')
    palette, reduce = content.get('palette'), content.get('reduce_zero_label', False)
    if palette is not None:
        if not isinstance(palette, list) or len(palette) != len(names):
            raise ValueError(f'"palette" is not a list of {len(names)} colours')
        palette = [_colour(colour) for colour in palette]
    if not isinstance(reduce, bool):
        raise ValueError(f'"reduce_zero_label" is {reduce!r}, not true or false')
    ignored = content.get('ignore_index', IGNORED)
    if ignored != IGNORED:
        raise ValueError(
            f'"ignore_index" is {ignored!r}, but what is ignored must have the label {IGNORED}'
        )
    return Classes(tuple(names), palette, reduce)


def _of_lines(lines: Iterable[str]) -> Classes:
    names: list[str] = []
    colours: list[Colour] = []
    for line in lines:
        words = line.split()
        if not words or words[0].startswith('#'):
            continue
        numbers = words[-3:]
        if len(words) > 3 and all(word.isdecimal() for word in numbers):
            colours.append(_colour([int(word) for word in numbers]))
            words = words[:-3]
        names.append(' '.join(words))
    if colours and len(colours) != len(names):
        raise ValueError(f'{len(colours)} of {len(names)} lines have a colour')
    return Classes(tuple(names), colours or None)


def _colour(values: Any) -> Colour:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 3:
        raise ValueError(f'{values!r} is not a colour [red, green, blue]')
    if not all(type(value) is int and 0 <= value <= 255 for value in values):
        raise ValueError(f'{values!r} is not a colour of numbers from 0 to 255')
    return values[0], values[1], values[2]
