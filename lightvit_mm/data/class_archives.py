"""Checks of images in archives, which are read as a training reads them."""

from __future__ import annotations

import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any

from lightvit_mm.data.class_reader import open_images
from lightvit_mm.data.findings import ERROR, Finding

__all__ = ['ArchiveChecks']


class ArchiveChecks:
    """The checks of an archive, or of a folder of archives, made one by one.

    It is opened when the checks begin: reading the index of ImageNet's archive takes as long as
    reading the file.

    Args:
        path: the archive or the folder.
        about_classes: takes the number of images of each class.
        about_image: takes the class of an image, a file with its content, and its name.

    Raises:
        DataError: the archive cannot be read; raised when the checks begin.
    """

    def __init__(
        self,
        path: Path,
        about_classes: Callable[[Counter[str]], Iterable[Finding]],
        about_image: Callable[[str, str, str], Iterator[Finding]],
    ) -> None:
        self.path = path
        self.about_classes = about_classes
        self.about_image = about_image
        self._reading = Lock()

    @cached_property
    def _opened(self) -> tuple[Any, list[str]]:
        return open_images(self.path, None)

    def __len__(self) -> int:
        return 1 + len(self._opened[0])

    def __iter__(self) -> Iterator[Callable[[], Iterable[Finding]]]:
        reader, names = self._opened
        counts = Counter(names[label] for label in reader.targets)
        yield partial(self.about_classes, counts)
        yield from (partial(self._look_at, number) for number in range(len(reader)))

    def _look_at(self, number: int) -> Iterator[Finding]:
        reader, names = self._opened
        name = f'{self.path}: {reader.filename(number)}'
        try:
            with self._reading:  # one position in the archive for all threads
                content = reader[number][0].read()
        except (OSError, tarfile.TarError) as error:
            yield Finding(ERROR, 'image that cannot be read', name, '', str(error))
            return
        with tempfile.NamedTemporaryFile(suffix=Path(name).suffix) as file:
            file.write(content)
            file.flush()
            yield from self.about_image(names[reader.targets[number]], file.name, name)
