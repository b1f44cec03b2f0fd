"""Writing files so that a name never has half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ['whole_file', 'write_whole']


@contextmanager
def whole_file(path: str | Path, keep_part: bool = False) -> Iterator[Path]:
    """Give a temporary file to write in the place of ``path``, and rename it at the end.

    Whatever happens in between (an error, the end of the process, a full disk), ``path`` keeps what
    it had. If the process dies, ``<name>.part`` stays; the next file of that name replaces it.
    Missing folders are made, and a link is followed.

    Args:
        path: file to write.
        keep_part: keep ``<name>.part`` after an error as well.

    Raises:
        OSError: the file cannot be written; the error names ``path``.
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f'{target.name}.part')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        # Some file systems would rename before they write, and could lose power in between.
        with open(part, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException as error:
        if not keep_part:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(part)):
            # The system names no file when a disk is full.
            error.filename, error.filename2 = str(path), None
        raise


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8, by `whole_file`."""
    with whole_file(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
