"""Running OpenVINO and ONNX files in OpenVINO."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightvit_mm.runtimes.session import INPUT, METADATA, Size


class OpenvinoSession:
    """An OpenVINO or ONNX file in OpenVINO, see `Session`.

    Args:
        file: an ``.xml`` file, with its ``.bin`` file next to it, or an ONNX file.
        precision: of all arithmetic that is not in 8 bits, ``f32`` or ``bf16``. OpenVINO's own
            default is bfloat16 on processors that have it, which changes detections.
    """

    def __init__(self, file: Path, precision: str = 'f32') -> None:
        settings = {
            'INFERENCE_PRECISION_HINT': precision,
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
            'PERFORMANCE_HINT': 'LATENCY',
        }
        core = the_core()
        model = core.read_model(file)
        self.metadata: dict[str, Any] = {}
        if model.has_rt_info([METADATA]):
            self.metadata = json.loads(model.get_rt_info([METADATA]).astype(str))
        self.outputs: list[str] = [output.any_name for output in model.outputs]
        inputs = {node.any_name: node.partial_shape for node in model.inputs}
        if list(inputs) != [INPUT] or len(inputs[INPUT]) != 4:
            shown = {name: str(shape) for name, shape in inputs.items()}
            raise ValueError(f'its inputs are {shown}, not one of rank 4 named {INPUT}')
        height, width = list(inputs[INPUT])[2:]
        self.size: Size | None = None
        if height.is_static and width.is_static:
            self.size = (height.get_length(), width.get_length())
        self.model = core.compile_model(model, 'CPU', settings)

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Run the file, see `Session.run`."""
        # Without a copy, OpenVINO would write the next results to the same memory.
        values = self.model({INPUT: image}, share_outputs=False).to_tuple()
        return dict(zip(self.outputs, values, strict=True))


open_session = OpenvinoSession


@cache
def the_core() -> Any:
    """The only ``Core`` of the process, which is never deleted.

    Each sets a stack for signal handlers, and restores the former one when it is deleted. Of two,
    the second may restore that of the first after it is gone; the next signal, for instance at the
    end of a data loader's worker, is then a segmentation fault.
    """
    import openvino

    return openvino.Core()
