"""Quantising an ONNX file to 8 bits, for CPUs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lightvit_mm.errors import UserError
from lightvit_mm.runtimes.session import INPUT

COPIES = 4  # of the float file, which onnxruntime keeps for a while
# Everything else stays in float: token norms, softmax, activations, postprocessing.
QUANTISED = ('Conv', 'Gemm', 'MatMul')


def quantize_onnx(file: Path, out: Path, images: Iterable[np.ndarray], results: bool = True) -> int:
    """Quantise convolutions and matrix products with onnxruntime's static quantisation.

    Weights become 8-bit with one scale per output channel, activations unsigned 8-bit with the
    range that they have on the images. Weights are not reduced to 7 bits: the result is meant for
    processors that add 8-bit products without overflow (AVX-VNNI, AVX512-VNNI, ARM).

    Args:
        file: the float file, written by tools/export.py.
        out: the file to write.
        images: typical inputs (1, 3, H, W); a hundred are plenty.
        results: quantise what these layers return too, as onnxruntime's 8-bit layers need it.
            OpenVINO's do not, and without it they include the activation that follows.

    Returns:
        The number of layers that compute in 8 bits.

    Raises:
        UserError: there is too little space for temporary files.
    """
    _check_space(file)
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.inputs = ({INPUT: image} for image in images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.inputs, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / 'prepared.onnx'
        # Its symbolic shape inference does not support NonMaxSuppression; onnx's own does.
        quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        weights = {weight.name for weight in graph.initializer}
        products = [
            node.name
            for node in graph.node
            if node.op_type in QUANTISED and node.input[1] not in weights
        ]
        quantize_static(
            prepared,
            out,
            Reader(),
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # 'MatMulConstBOnly' has no effect on files in QDQ format.
            nodes_to_exclude=products,
            extra_options={
                'OpTypesToExcludeOutputQuantization': [] if results else list(QUANTISED)
            },
        )
    return _layers(onnx.load(out).graph)


def _check_space(file: Path) -> None:
    # Without space, onnxruntime writes a part of a file and fails to read it.
    folder, needed = tempfile.gettempdir(), COPIES * file.stat().st_size
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f'--quantize needs {needed / 1e6:.0f} MB for temporary files, and {folder} has '
            f'{free / 1e6:.0f} MB: make room, or set TMPDIR to another folder'
        )


def _layers(graph: Any) -> int:
    restored = {node.output[0] for node in graph.node if node.op_type == 'DequantizeLinear'}
    return sum(node.op_type in QUANTISED and node.input[1] in restored for node in graph.node)
