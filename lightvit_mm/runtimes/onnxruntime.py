"""Running ONNX files in onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightvit_mm.runtimes.session import INPUT, METADATA, Size


class OnnxSession:
    """An ONNX file in onnxruntime, see `Session`.

    Args:
        file: the ONNX file.
    """

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        # Otherwise its threads keep spinning after a run, and slow down whatever runs next.
        options.add_session_config_entry('session.force_spinning_stop', '1')
        self.session = onnxruntime.InferenceSession(
            file, options, providers=['CPUExecutionProvider']
        )
        content = self.session.get_modelmeta().custom_metadata_map
        self.metadata: dict[str, Any] = json.loads(content.get(METADATA, '{}'))
        self.outputs: list[str] = [output.name for output in self.session.get_outputs()]
        inputs = {node.name: node.shape for node in self.session.get_inputs()}
        if list(inputs) != [INPUT] or len(inputs[INPUT]) != 4:
            raise ValueError(f'its inputs are {inputs}, not one of rank 4 named {INPUT}')
        height, width = inputs[INPUT][2:]
        self.size: Size | None = (height, width) if isinstance(height, int) else None

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Run the file, see `Session.run`."""
        return dict(zip(self.outputs, self.session.run(None, {INPUT: image}), strict=True))


open_session = OnnxSession
