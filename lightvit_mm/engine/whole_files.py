"""Files that are whole or not there, and the last whole checkpoint of a run."""

from __future__ import annotations

import logging
import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log
from mmengine.runner import find_latest_checkpoint
from mmengine.utils import apply_to

from lightvit_mm.checkpoints.reading import CheckpointError, read_checkpoint


class WholeFileBackend(LocalBackend):
    """Local files that are written beside and renamed, so that a name never has half a file.

    Whatever ends the process, or the disk's space, in between: what the name had before is still
    there. Only a ``<name>.part`` may stay behind; the next file of that name takes its place.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes; folders are made.

        Raises:
            OSError: the file could not be written; names it.
        """
        # Through a link, as a plain write would go.
        path = Path(os.path.realpath(filepath))
        part = path.with_name(f'{path.name}.part')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, 'wb') as file:
                file.write(obj)
                file.flush()
                # Some file systems rename before they write, and lose power in between.
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            # The system names no file when a disk is full.
            error.filename, error.filename2 = str(filepath), None
            raise

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text, see `put`."""
        self.put(obj.encode(encoding), filepath)


def register_whole_files() -> None:
    """Make mmengine write local files by `WholeFileBackend`, checkpoints before all."""
    register_backend('local', WholeFileBackend, force=True, prefixes='')


def latest_checkpoint(work_dir: str | Path, finite: bool = False) -> str | None:
    """The last checkpoint of a run from which it can go on.

    That is the one that the run's ``last_checkpoint`` names, or a later one if the run ended
    between writing it and naming it. One that is damaged is named in the log and passed over for
    the newest one before it.

    Args:
        work_dir: of the run.
        finite: pass over checkpoints with infinite or undefined numbers too.

    Returns:
        Its path, None if there is none.
    """
    for path in _newest_first(Path(work_dir)):
        if not is_whole(path):
            fault = 'is damaged'
        elif finite and not _is_finite(path):
            fault = 'holds infinite or undefined numbers'
        else:
            return str(path)
        print_log(f'{path} {fault}: passed over', logger='current', level=logging.WARNING)
    return None


def is_whole(path: str | Path) -> bool:
    """Whether a file that torch saved has all of its bytes, by the checksums in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:
        # A damaged header leads the reader of archives to many kinds of errors.
        return False


def _newest_first(work_dir: Path) -> list[Path]:
    name = find_latest_checkpoint(str(work_dir)) if work_dir.is_dir() else None
    named = Path(name) if name else None
    if named is not None and not named.is_file():
        # The run's folder was moved, or the run was started from another one.
        named = work_dir / named.name
    folders = {work_dir} if named is None else {work_dir, named.parent}
    times = {
        file: file.stat().st_mtime_ns
        for folder in folders
        for file in folder.glob('*.pth')
        # The best ones are kept without the optimizer.
        if file.is_file() and not file.name.startswith('best_')
    }

    def order(file: Path) -> tuple[bool, bool, int]:
        # Copying a folder mixes up the times of its files: by time alone an early epoch could win.
        after_named = (
            named in times and times[file] > times[named] and _step_of(file) > _step_of(named)
        )
        return after_named, file == named, times[file]

    return sorted(times, key=order, reverse=True)


def _step_of(checkpoint: Path) -> int:
    number = re.search(r'(\d+)$', checkpoint.stem)
    return int(number[1]) if number else -1


def _is_finite(checkpoint: Path) -> bool:
    tensors: list[torch.Tensor] = []
    try:
        content: dict[str, Any] = read_checkpoint(checkpoint)
    except CheckpointError:
        return False
    for part in ('state_dict', 'optimizer'):
        apply_to(content.get(part), lambda x: isinstance(x, torch.Tensor), tensors.append)
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
