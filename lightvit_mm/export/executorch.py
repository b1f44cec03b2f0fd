"""ExecuTorch files for XNNPACK, by PyTorch's converter from torch.export.

The input of a file is one image as in ONNX files, (1, 3, H, W) float32. A detector's file ends
before NMS, see `lightvit_mm.export.raw`.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from lightvit_mm.backbones import PyramidBackbone
from lightvit_mm.export.converters import run_converter, save_graph
from lightvit_mm.export.subject import Subject

__all__ = ['write']


def write(subject: Subject, part: Path) -> None:
    """Write a subject as a ``.pte`` file.

    Raises:
        UserError: the converter fails.
    """
    module = _contiguous(subject.whole)
    metadata = subject.metadata | {'outputs': list(subject.names), 'size': list(subject.size)}
    with tempfile.TemporaryDirectory() as folder:
        graph, described = Path(folder, 'model.pt2'), Path(folder, 'metadata.json')
        save_graph(module, torch.zeros(1, 3, *subject.size), graph)
        described.write_text(json.dumps(metadata))
        arguments = [graph, described, part]
        title = 'converting to ExecuTorch'
        print(run_converter(sys.executable, 'executorch_converter', arguments, title))


def _contiguous(module: nn.Module) -> nn.Module:
    """A copy without channels_last, which XNNPACK's partitioner and some kernels refuse."""
    module = copy.deepcopy(module)
    for part in module.modules():
        if isinstance(part, PyramidBackbone):
            part.level_format = torch.contiguous_format
    for tensor in (*module.parameters(), *module.buffers()):
        # contiguous() keeps the strides of weights with one column, row or channel, and the layout
        # of what a convolution returns follows them.
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return module
