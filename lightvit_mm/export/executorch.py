"""ExecuTorch files for XNNPACK, by PyTorch's converter from torch.export.

The input of a file is one image as in ONNX files, (1, 3, H, W) float32. A detector's file ends
before NMS, see `lightvit_mm.export.raw`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch

from lightvit_mm.export.converters import run_converter, save_graph
from lightvit_mm.export.subject import Subject

__all__ = ['write']


def write(subject: Subject, part: Path) -> None:
    """Write a subject as a ``.pte`` file.

    Raises:
        UserError: the converter fails.
    """
    metadata = subject.metadata | {'outputs': list(subject.names), 'size': list(subject.size)}
    with tempfile.TemporaryDirectory() as folder:
        graph, described = Path(folder, 'model.pt2'), Path(folder, 'metadata.json')
        save_graph(subject.whole, torch.zeros(1, 3, *subject.size), graph)
        described.write_text(json.dumps(metadata))
        arguments = [graph, described, part]
        title = 'converting to ExecuTorch'
        print(run_converter(sys.executable, 'executorch_converter', arguments, title))
