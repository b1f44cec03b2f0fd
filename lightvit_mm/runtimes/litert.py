"""Running LiteRT files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightvit_mm.runtimes.detections import choose
from lightvit_mm.runtimes.session import Size

METADATA_FILE = 'lightvit_mm.json'  # in the archive at the end of a file


class LiteRTSession:
    """A LiteRT file on the CPU, see `Session`.

    Args:
        file: the ``.tflite`` file.
    """

    def __init__(self, file: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(str(file), num_threads=torch.get_num_threads())
        self.runner = self.interpreter.get_signature_runner()
        self.metadata: dict[str, Any] = {}
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                self.metadata = json.loads(archive.read(METADATA_FILE))
        ((self.input, details),) = self.runner.get_input_details().items()
        self.size: Size | None = tuple(details['shape'].tolist()[1:3])
        # The converter numbers them; sorted by name, the tenth would come before the second.
        self.raw_outputs = sorted(
            self.runner.get_output_details(), key=lambda name: (len(name), name)
        )
        self.outputs: list[str] = self.metadata.get('outputs', self.raw_outputs)

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Run the file, see `Session.run`; values between whole numbers are rounded."""
        made = self.runner(**{self.input: image_bytes(image)})
        arrays = [made[name] for name in self.raw_outputs]
        if 'choice' in self.metadata:
            boxes, scores = arrays
            return choose(boxes, scores, self.metadata['choice'])
        return dict(zip(self.outputs, arrays, strict=True))


open_session = LiteRTSession


def image_bytes(image: np.ndarray) -> np.ndarray:
    """An image (1, 3, H, W) from 0 to 255 as (1, H, W, 3) uint8."""
    return np.rint(image).clip(0, 255).astype('uint8').transpose(0, 2, 3, 1)


def count_layers(file: Path) -> int:
    """Number of layers of a file that compute with 8-bit weights."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(file.read_bytes(), 0)
    layers = {
        schema.BuiltinOperator.CONV_2D,
        schema.BuiltinOperator.DEPTHWISE_CONV_2D,
        schema.BuiltinOperator.FULLY_CONNECTED,
    }
    graph = model.subgraphs[0]
    return sum(
        model.operatorCodes[operator.opcodeIndex].builtinCode in layers
        and graph.tensors[operator.inputs[1]].type == schema.TensorType.INT8
        for operator in graph.operators
    )
