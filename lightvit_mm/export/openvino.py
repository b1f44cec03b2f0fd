"""OpenVINO files, by OpenVINO's converter from ONNX files."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from lightvit_mm.export import onnx
from lightvit_mm.export.int8 import quantize_onnx
from lightvit_mm.export.subject import Subject, calibration_inputs
from lightvit_mm.runtimes.openvino import the_core
from lightvit_mm.runtimes.session import METADATA

__all__ = ['compress', 'quantize', 'write']


def write(subject: Subject, part: Path) -> None:
    """Write a subject as an ``.xml`` file and its ``.bin`` file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'model.onnx')
        onnx.write(subject, file)
        _convert(subject, file, part)
        if subject.calibration:
            subject.onnx = file.read_bytes()


def compress(part: Path) -> None:
    """Store the weights of a file in 16 bits."""
    import openvino

    # In a folder of its own, since OpenVINO reads weights while it writes.
    with tempfile.TemporaryDirectory(dir=part.parent) as folder:
        smaller = Path(folder, 'model.xml')
        openvino.save_model(the_core().read_model(part), smaller, compress_to_fp16=True)
        os.replace(smaller.with_suffix('.bin'), part.with_suffix('.bin'))
        os.replace(smaller, part)


def quantize(subject: Subject, file: Path, part: Path) -> int:
    """Write an OpenVINO file in 8 bits; returns the number of layers that are.

    Args:
        subject: its images are used; `write` must have written it before.
        file: the file that `write` made of it.
        part: the file to write.

    Raises:
        UserError: an image cannot be read, or there is too little space for temporary files.
    """
    assert subject.onnx
    with tempfile.TemporaryDirectory() as folder:
        exact, int8 = Path(folder, 'model.onnx'), Path(folder, 'model.int8.onnx')
        exact.write_bytes(subject.onnx)
        layers = quantize_onnx(exact, int8, calibration_inputs(subject), results=False)
        _convert(subject, int8, part)
    return layers


def _convert(subject: Subject, file: Path, part: Path) -> None:
    import openvino

    model = openvino.convert_model(file)
    model.set_rt_info(json.dumps(subject.metadata), [METADATA])
    lower = part.with_suffix('.xml')  # OpenVINO refuses other spellings of it
    openvino.save_model(model, lower, compress_to_fp16=False)
    os.replace(lower, part)
