"""Quantising an exported file to 8 bits, for onnxruntime on CPUs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from rich.progress import track

from lightvit_mm.errors import UserError
from lightvit_mm.files import whole_file
from lightvit_mm.measure.timing import alternate
from lightvit_mm.runtimes.onnxruntime import INPUT, Size, fit_image, open_session

COPIES = 4  # of the float file, which onnxruntime keeps for a while
# Everything else stays in float: token norms, softmax, activations, postprocessing.
QUANTISED = ('Conv', 'Gemm', 'MatMul')


@dataclass
class Quantised:
    """Result of `quantize`.

    Attributes:
        file: the 8-bit file.
        layers: number of layers that compute in 8 bits.
        images: number of images from which the ranges were measured.
        seconds: median latencies of the float file and of this one, measured in turn with
            PyTorch's number of threads.
    """

    file: Path
    layers: int
    images: int
    seconds: tuple[float, ...]


def quantize(
    file: Path, out: Path, images: Sequence[Path], padding: np.ndarray, size: Size
) -> Quantised:
    """Quantise convolutions and matrix products with onnxruntime's static quantisation.

    Weights become 8-bit with one scale per output channel, activations unsigned 8-bit with the
    range that they have on the images. Weights are not reduced to 7 bits: the result is meant for
    processors that add 8-bit products without overflow (AVX-VNNI, AVX512-VNNI, ARM).

    Args:
        file: the float file, written by tools/export_onnx.py.
        out: the file to write.
        images: typical images; a hundred are plenty.
        padding: see `fit_image`.
        size: height and width of the input.

    Raises:
        UserError: an image cannot be read, or there is too little space for temporary files.
    """
    _check_space(file)
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.inputs = _inputs(images, padding, size)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.inputs, None)

    with tempfile.TemporaryDirectory() as folder, whole_file(out) as part:
        prepared = Path(folder) / 'prepared.onnx'
        # Its symbolic shape inference does not support NonMaxSuppression; onnx's own does.
        quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            prepared,
            part,
            Reader(),
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={'MatMulConstBOnly': True},
        )
        seconds = _latencies([file, part], size)
        layers = _layers(onnx.load(part).graph)
    return Quantised(out, layers, len(images), seconds)


def _check_space(file: Path) -> None:
    # Without space, onnxruntime writes a part of a file and fails to read it.
    folder, needed = tempfile.gettempdir(), COPIES * file.stat().st_size
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f'--quantize needs {needed / 1e6:.0f} MB for temporary files, and {folder} has '
            f'{free / 1e6:.0f} MB: make room, or set TMPDIR to another folder'
        )


def _inputs(
    images: Sequence[Path], padding: np.ndarray, size: Size
) -> Iterator[dict[str, np.ndarray]]:
    for file in track(images, description='measuring ranges'):
        image = mmcv.imread(file, channel_order='bgr')
        if image is None:
            raise UserError(f'--quantize: {file} is not an image that OpenCV can decode')
        image = mmcv.imrescale(image, min(size[0] / image.shape[0], size[1] / image.shape[1]))
        yield {INPUT: fit_image(image, size, padding)[0]}


def _latencies(files: Sequence[Path], size: Size) -> tuple[float, ...]:
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, *size)).astype('float32')
    calls = {str(file): partial(open_session(file).run, None, {INPUT: image}) for file in files}
    seconds = alternate(calls, rounds=20, min_seconds=2.0)
    return tuple(float(np.median(values)) for values in seconds.values())


def _layers(graph: Any) -> int:
    restored = {node.output[0] for node in graph.node if node.op_type == 'DequantizeLinear'}
    return sum(node.op_type in QUANTISED and node.input[1] in restored for node in graph.node)
