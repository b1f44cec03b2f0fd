"""Quantising without space; tests/engine/test_exported_model.py quantises."""

import shutil
import tempfile
from types import SimpleNamespace

import pytest

from lightvit_mm.errors import UserError
from lightvit_mm.export.int8 import quantize_onnx


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
