"""mmengine's backends without partly written files, and the last whole checkpoint of a run."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log
from mmengine.registry import VISBACKENDS
from mmengine.runner import find_latest_checkpoint
from mmengine.utils import apply_to
from mmengine.visualization import LocalVisBackend

from lightvit_mm.checkpoints.reading import CheckpointError, find_damage, read_checkpoint
from lightvit_mm.files import write_whole


class WholeFileBackend(LocalBackend):
    """mmengine's backend for local files, which writes through `whole_file`."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes.

        Raises:
            OSError: the file cannot be written; the error names it.
        """
        write_whole(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text; raises the same errors as `put`."""
        write_whole(filepath, obj.encode(encoding))


@VISBACKENDS.register_module()
class WholePicturesBackend(LocalVisBackend):
    """mmengine's backend for pictures, which writes them whole and reports a full disk."""

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **_: Any) -> None:
        """Write an RGB image.

        Raises:
            OSError: the file cannot be written; the error names it.
        """
        content = cv2.imencode('.png', cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
        write_whole(Path(self._img_save_dir, f'{name}_{step}.png'), content.tobytes())


def register_whole_files() -> None:
    """Make mmengine write local files, checkpoints among them, with `WholeFileBackend`."""
    register_backend('local', WholeFileBackend, force=True, prefixes='')


def latest_checkpoint(work_dir: str | Path, finite: bool = False) -> str | None:
    """The last checkpoint from which a run can resume.

    This is the one named in ``last_checkpoint``, or a later one if the run ended after writing it
    but before naming it. A damaged checkpoint is logged and skipped in favour of the newest one
    before it.

    Args:
        work_dir: output folder of the run.
        finite: also skip checkpoints with infinite or undefined numbers.

    Returns:
        Path of the checkpoint, None if there is none.
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
    """Whether a file that torch saved matches the checksums in it."""
    return find_damage(path) is None


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
        # The best checkpoints lack the optimizer state.
        if file.is_file() and not file.name.startswith('best_')
    }

    def order(file: Path) -> tuple[bool, bool, int]:
        # Copying a folder can mix up file times: by time alone, an early epoch could win.
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
