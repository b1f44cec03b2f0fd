"""What is quantised, and without space; tests/engine/test_exported_model.py quantises detectors."""

import shutil
import tempfile
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from lightvit_mm.errors import UserError
from lightvit_mm.export.exporting import export_subject
from lightvit_mm.export.int8 import quantize_onnx
from lightvit_mm.export.subject import Subject


class Attention(nn.Module):
    """A convolution, two linear layers with and without bias, and a product of their results."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)

    def forward(self, x):
        x = self.conv(x).flatten(2).transpose(1, 2)
        return self.query(x) @ self.key(x).transpose(1, 2)


def test_products_of_activations_stay_in_float(tmp_path):
    torch.manual_seed(0)
    file, int8 = tmp_path / 'model.onnx', tmp_path / 'model.int8.onnx'
    export_subject(Subject(Attention(), ['product'], (4, 4)), file)
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, 4, 4)).astype('float32')
    assert quantize_onnx(file, int8, [image], results=False) == 3
    graph = onnx.load(int8).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    layers = [node for node in graph.node if node.op_type in ('Conv', 'Gemm', 'MatMul')]
    inputs = [[makers[name] == 'DequantizeLinear' for name in node.input[:2]] for node in layers]
    assert inputs.count([True, True]) == 3
    assert inputs.count([False, False]) == len(inputs) - 3 == 1


def test_too_little_space_for_temporary_files(tmp_path, monkeypatch):
    file = tmp_path / 'model.onnx'
    file.write_bytes(bytes(10**6))
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: SimpleNamespace(free=2 * 10**6))
    with pytest.raises(UserError) as caught:
        quantize_onnx(file, tmp_path / 'model.int8.onnx', [])
    assert f'needs 4 MB for temporary files, and {tempfile.gettempdir()} has 2 MB' in str(
        caught.value
    )
    assert list(tmp_path.iterdir()) == [file]
