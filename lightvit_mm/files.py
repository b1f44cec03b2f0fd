"""Writing files completely or not at all, and never over something else."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lightvit_mm.errors import UserError

__all__ = [
    'IMAGE_SUFFIXES',
    'check_output_file',
    'check_output_folder',
    'whole_file',
    'whole_files',
    'write_whole',
]

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
HEAD = 65536  # bytes of an existing file in which `check_output_file` looks for the mark


@contextmanager
def whole_file(path: str | Path, shared: bool = False, keep_part: bool = False) -> Iterator[Path]:
    """Yield a temporary file to write to, which becomes ``path`` when the block ends.

    Until then ``path`` keeps its old content, whatever happens (an error, the end of the process, a
    full disk). If the process dies, ``<name>.part`` remains, and the next write replaces it.
    Missing folders are made, and links are followed.

    Args:
        path: the file.
        shared: other processes may write the same file now, so the temporary file needs a unique
            name.
        keep_part: keep the temporary file after an error too.

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
        if not keep_part:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(part)):
            # The system names no file when a disk is full.
            error.filename = str(path)
            del error.filename2  # with None, the message would end in "-> None"
        raise


@contextmanager
def whole_files(path: str | Path) -> Iterator[Path]:
    """Yield a place for ``path`` in a temporary folder, for formats that have several files.

    When the block ends, everything in that folder moves next to ``path``: it itself comes last, and
    its older version goes first, so that no ``path`` ever stands beside the parts of another. As in
    `whole_file`, old files stay until then.

    Args:
        path: the file by which the others are found. The block must write it.

    Raises:
        OSError: a file cannot be written; the error names ``path``.
    """
    target = Path(os.path.realpath(path))
    folder = target.with_name(f'{target.name}.part')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(folder)  # of a process that died
        folder.mkdir()
        part = folder / target.name
        yield part
        others = sorted(set(folder.iterdir()) - {part})
        for file in (file for file in folder.rglob('*') if file.is_file()):
            with open(file, 'rb') as content:
                os.fsync(content.fileno())
        if others or part.is_dir():
            _remove(target)
        for file in others:
            _remove(target.with_name(file.name))
            os.replace(file, target.with_name(file.name))
        os.replace(part, target)
    except OSError as error:
        if error.errno and (not error.filename or str(folder) in str(error.filename)):
            error.filename = str(path)
            del error.filename2
        raise
    finally:
        with suppress(OSError):
            _remove(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8, through `whole_file`."""
    with whole_file(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def check_output_file(
    path: str | Path, option: str, mark: bytes, inputs: Iterable[str | Path] = ()
) -> None:
    """Check, before the work begins, that a tool may and can write a file.

    Args:
        path: the file. If it exists, it must be empty or one that the tool wrote before.
        option: how the user gave it, for the message.
        mark: regular expression that matches the first bytes of the tool's own files.
        inputs: files that the tool reads, and folders of which it reads all files. The output must
            be neither one of these files nor in one of these folders. Addresses are ignored.

    Raises:
        UserError: the file is taken, is an input, or cannot be written.
    """
    target = Path(path)
    with _unwritable(path, option):
        if target.is_dir():
            raise UserError(f'{option} {path} is a folder: give the name of a file')
        _check_inputs(target, option, inputs)
        if target.exists():
            if not target.is_file():
                raise UserError(f'{option} {path} is not a regular file: give another name')
            with target.open('rb') as file:
                head = file.read(HEAD)
            if head and not re.search(mark, head):
                raise UserError(
                    f'{option} {path} exists, and nothing shows that this tool wrote it: give '
                    'another name, or move it away'
                )
        _check_writable(Path(os.path.realpath(target)).parent)


def check_output_folder(
    path: str | Path, option: str, signs: Iterable[str], inputs: Iterable[str | Path] = ()
) -> None:
    """Check, before the work begins, that a tool may and can write files into a folder.

    Args:
        path: the folder. If it exists and holds images, the tool must have written them.
        option: how the user gave it, for the message.
        signs: names of files, of which one is in every folder that the tool has written to.
        inputs: see `check_output_file`.

    Raises:
        UserError: the folder is a file, holds other images, is or lies in an input, or cannot be
            written to.
    """
    folder = Path(path)
    with _unwritable(path, option):
        if folder.exists() and not folder.is_dir():
            raise UserError(f'{option} {path} is a file: give a folder')
        _check_inputs(folder, option, inputs)
        if folder.is_dir() and not any((folder / sign).exists() for sign in signs):
            images = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
            if images:
                raise UserError(
                    f'{option} {path} holds images that this tool did not write, '
                    f'{min(images).name} among them: give a new or empty folder'
                )
        _check_writable(Path(os.path.realpath(folder)))


@contextmanager
def _unwritable(path: str | Path, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = f' ({error.filename})' if error.filename else ''
        raise UserError(f'{option} {path} cannot be written: {error.strerror}{place}') from error


def _check_inputs(target: Path, option: str, inputs: Iterable[str | Path]) -> None:
    real = Path(os.path.realpath(target))
    for name in inputs:
        source = Path(os.path.realpath(name))
        if not source.exists():
            continue
        if target.exists() and target.samefile(source):
            raise UserError(
                f'{option} {target} is an input, which would be lost: give another name'
            )
        if source.is_dir() and source in real.parents:
            raise UserError(
                f'{option} {target} is inside {name}, from which files are read: give a place '
                'outside'
            )


def _check_writable(folder: Path) -> None:
    """Make a nameless file in a folder or, if it does not exist, in the one that will hold it."""
    while not folder.exists():
        if folder.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder))
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        error.filename = str(folder)  # not that of the temporary file
        raise
