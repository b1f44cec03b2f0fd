"""An 8-bit form of an exported file, for onnxruntime on CPUs."""

from __future__ import annotations

import os
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
from lightvit_mm.measure.timing import alternate
from lightvit_mm.runtimes.onnxruntime import INPUT, Size, fit_image, open_session

# The rest, token norms, softmax, activations and what follows the heads, stays in float.
QUANTISED = ('Conv', 'Gemm', 'MatMul')


@dataclass
class Quantised:
    """What `quantize` made.

    Attributes:
        file: the 8-bit file.
        layers: how many layers compute in 8 bits.
        images: how many images set the ranges.
        seconds: median latency of the file in float, and of this one, in turn at the size of the
            ranges with PyTorch's number of threads.
    """

    file: Path
    layers: int
    images: int
    seconds: tuple[float, ...]


def quantize(
    file: Path, out: Path, images: Sequence[Path], padding: np.ndarray, size: Size
) -> Quantised:
    """Quantise the convolutions and matrix products of a file by onnxruntime's static method.

    Weights are 8-bit with a scale for each output channel, activations unsigned 8-bit with the
    range that they have on the images. Weights are not narrowed to 7 bits: the result is meant for
    processors that add 8-bit products without overflow (AVX-VNNI, AVX512-VNNI, ARM).

    Args:
        file: in float, written by tools/export_onnx.py.
        out: the file to write.
        images: such as the model will see; a hundred are plenty.
        padding: see `fit_image`.
        size: height and width at which the ranges are measured.

    Raises:
        UserError: an image cannot be read.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.inputs = _inputs(images, padding, size)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.inputs, None)

    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        prepared, part = Path(folder) / 'prepared.onnx', Path(folder) / 'int8.onnx'
        # Its symbolic shapes do not know NonMaxSuppression; onnx's own do.
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
        os.replace(part, out)
    return Quantised(out, layers, len(images), seconds)


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
