"""Writing files completely or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ['whole_file', 'write_whole']


@contextmanager
def whole_file(path: str | Path, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary file to write to, which becomes ``path`` when the block ends.

    Until then ``path`` keeps its old content, whatever happens (an error, the end of the process, a
    full disk). If the process dies, ``<name>.part`` remains, and the next write replaces it.
    Missing folders are made, and links are followed.

    Args:
        path: the file.
        shared: other processes may write the same file now, so the temporary file needs a unique
            name.

    Raises:
        OSError: the file cannot be written; the error names ``path``.
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f'{target.name}{f".{uuid.uuid4().hex}" if shared else ""}.part')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        # Some file systems rename before they write; a power failure then leaves an empty file.
        with open(part, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(part)):
            # The system names no file when a disk is full.
            error.filename, error.filename2 = str(path), None
        raise


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8, through `whole_file`."""
    with whole_file(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
