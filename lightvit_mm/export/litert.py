"""LiteRT files (TensorFlow Lite), by Google's converter from torch.export.

The input of a file is one image as OpenCV reads it, (1, H, W, 3) uint8. A detector's file ends
before NMS, see `lightvit_mm.export.raw`.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch

from lightvit_mm.export.converters import ImageBytes, python_with, run_converter, save_graph
from lightvit_mm.export.subject import Subject, calibration_inputs
from lightvit_mm.runtimes.litert import METADATA_FILE, count_layers, image_bytes

__all__ = ['quantize', 'write']


def write(subject: Subject, part: Path) -> None:
    """Write a subject as a ``.tflite`` file.

    Raises:
        UserError: the converter is not installed or fails.
    """
    python = python_with('litert_torch', 'litert')
    example = torch.zeros(1, *subject.size, 3, dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, 'model.pt2')
        save_graph(ImageBytes(subject.whole), example, graph)
        run_converter(python, 'litert_converter', ['convert', graph, part], 'converting to LiteRT')
    _add_metadata(subject, part)


def quantize(subject: Subject, file: Path, part: Path) -> int:
    """Write an 8-bit file: convolutions and layers, with one scale per output channel.

    Everything else stays in float: norms of tokens, products of attention, softmax, boxes. With
    ``full_integer``, only the last layers and what follows them.

    Args:
        subject: the subject, of which the calibration images are used.
        file: the float file.
        part: the file to write.

    Returns:
        The number of layers that compute in 8 bits.

    Raises:
        UserError: the converter is not installed or fails, or an image cannot be read.
    """
    python = python_with('litert_torch', 'litert')
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, 'images.npy')
        np.save(images, np.concatenate([image_bytes(x) for x in calibration_inputs(subject)]))
        kind = 'everything' if subject.full_integer else 'layers'
        command = ('quantize', kind, file, images, part)
        run_converter(python, 'litert_converter', command, 'quantising')
    _add_metadata(subject, part, precision='int8')
    return count_layers(part)


def _add_metadata(subject: Subject, part: Path, **others: str) -> None:
    """Append an archive, as TensorFlow Lite does for labels; runtimes ignore it."""
    with zipfile.ZipFile(part, 'a') as archive:
        archive.writestr(
            METADATA_FILE, json.dumps(subject.metadata | {'outputs': list(subject.names)} | others)
        )
