"""Running ONNX files in onnxruntime, and the conventions that the export shares."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightvit_mm.errors import UserError

INPUT = 'image'
# Key of a file's metadata: JSON with the task and the class names, which the graph lacks.
METADATA = 'lightvit_mm'
# A graph has no branches. If 32 divides both sides, no family pads, except those with open_size =
# False: a graph traced at one such size is right for all of them.
DYNAMIC_MULTIPLE = 32
NEEDED = ('onnx', 'onnxscript', 'onnxruntime')

Size = tuple[int, int]


def require_packages(names: Sequence[str] = NEEDED) -> None:
    """Check that the packages that the export needs are installed.

    Raises:
        UserError: one is missing.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f'the export needs {", ".join(missing)}, not installed here: '
            f'pip install {" ".join(missing)}  (or pip install -e ".[onnx]" in the checkout)'
        )


def open_session(file: Path) -> Any:
    """Open an onnxruntime session on the CPU, with as many threads as PyTorch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    # Otherwise its threads keep spinning after a run, and slow down whatever runs next.
    options.add_session_config_entry('session.force_spinning_stop', '1')
    return onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])


def fit_image(image: np.ndarray, size: Size, padding: np.ndarray) -> tuple[np.ndarray, Size]:
    """Place an image in the upper left corner of a graph's input.

    Args:
        image: (height, width, 3), as OpenCV reads it; shrunk if it is larger than ``size``.
        size: height and width of the input.
        padding: the colour (3,) of the rest.

    Returns:
        The input (1, 3, *size) float32, and the height and width that the image has in it.
    """
    import mmcv

    height, width = image.shape[:2]
    ratio = min(1.0, size[0] / height, size[1] / width)
    if ratio < 1:
        height, width = min(size[0], round(height * ratio)), min(size[1], round(width * ratio))
        image = mmcv.imresize(image, (width, height))
    inputs = np.empty((1, 3, *size), 'float32')
    inputs[:] = padding.reshape(1, 3, 1, 1)
    inputs[0, :, :height, :width] = image.transpose(2, 0, 1)
    return inputs, (height, width)


def padding_of(settings: dict[str, Any]) -> np.ndarray:
    """The colour (3,), in OpenCV's order, that ``data_preprocessor`` settings normalise to zero.

    OpenMMLab pads with zeros after the normalisation.
    """
    mean = np.array(settings.get('mean') or [0.0] * 3, 'float32')
    swapped = settings.get('bgr_to_rgb') or settings.get('rgb_to_bgr')
    return mean[::-1] if swapped else mean
