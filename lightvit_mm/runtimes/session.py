"""What the runtimes for exported files have in common."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lightvit_mm.errors import UserError

INPUT = 'image'
# Key of a file's metadata: JSON with the task, the class names and what else the graph lacks.
METADATA = 'lightvit_mm'
# A graph has no branches. If 32 divides both sides, no family pads, except those with open_size =
# False: a graph traced at one such size is right for all of them.
DYNAMIC_MULTIPLE = 32
# The module of this package that runs the files of a suffix. Each has open_session(file).
RUNTIMES = {
    '.onnx': 'onnxruntime',
    '.xml': 'openvino',
    '.tflite': 'litert',
    '.ncnn.param': 'ncnn',
    '.pte': 'executorch',
}
# Of the runtimes whose packages have other names.
PACKAGES = {'litert': 'ai_edge_litert'}

Size = tuple[int, int]


class Session(Protocol):
    """An exported file that is ready to run on the CPU.

    Attributes:
        size: height and width of the input, None if they are open.
        metadata: what the export wrote; empty in files that it did not write.
        outputs: names of the outputs in order.
    """

    size: Size | None
    metadata: dict[str, Any]
    outputs: list[str]

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Run the file.

        Args:
            image: (1, 3, H, W) float32, 0 to 255, channels in the order blue, green, red.

        Returns:
            Of a detector ``boxes`` (n, 4) as x1, y1, x2, y2 in pixels of the input, ``scores``
            (n,), ``labels`` (n,) and maybe ``masks`` (n, 28, 28); of a segmentor ``logits``
            (1, classes, H, W); of a backbone ``level0``, ``level1`` and so on, (1, C, h, w).
        """
        ...


def suffix_of(file: str | Path) -> str | None:
    """The key of `RUNTIMES` with which the name of a file ends, None if there is none.

    Raises:
        UserError: it is a Core ML package.
    """
    name = Path(file).name.lower()
    if name.endswith('.mlpackage'):
        raise UserError(
            f'{file}: Core ML packages run on Apple devices only; give the checkpoint, or a file '
            f'that ends in {", ".join(RUNTIMES)}'
        )
    return next((suffix for suffix in RUNTIMES if name.endswith(suffix)), None)


def open_file(file: str | Path) -> Session:
    """Open an exported file in the runtime of its suffix, with as many threads as PyTorch.

    Raises:
        UserError: the file is missing, has an unknown suffix or cannot be run, or the runtime is
            not installed.
    """
    path, suffix = Path(file), suffix_of(file)
    if suffix is None:
        raise UserError(f'{file} is no exported file; those end in {", ".join(RUNTIMES)}')
    if not path.is_file():
        raise UserError(f'{file} does not exist; tools/export.py creates such files')
    runtime = RUNTIMES[suffix]
    require_packages([PACKAGES.get(runtime, runtime)], runtime)
    try:
        session: Session = importlib.import_module(f'{__package__}.{runtime}').open_session(path)
    except Exception as error:  # the runtimes' errors have no common base
        raise UserError(
            f'{file} is not a file that {runtime} can run: {error}. Write it again with '
            'tools/export.py'
        ) from error
    return session


def require_packages(names: Sequence[str], extra: str) -> None:
    """Check that packages are installed.

    Args:
        names: the modules to import.
        extra: the extra of this package that installs them.

    Raises:
        UserError: one is missing.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f'{", ".join(missing)} is needed and not installed here: pip install '
            f'{" ".join(missing)}  (or pip install -e ".[{extra}]" in the checkout)'
        )
