"""Opening an exported file in OpenVINO."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from lightvit_mm.errors import UserError

__all__ = ['open_model', 'require_openvino']


def require_openvino() -> None:
    """Check that OpenVINO is installed.

    Raises:
        UserError: it is missing.
    """
    if importlib.util.find_spec('openvino') is None:
        raise UserError('openvino is not installed: pip install openvino')


def open_model(file: Path) -> Any:
    """Compile a model for the CPU, with as many threads as PyTorch; it takes a list of arrays.

    It computes in float32: by default OpenVINO silently uses bfloat16 on processors that have it.
    """
    import openvino

    settings = {
        'INFERENCE_PRECISION_HINT': 'f32',
        'INFERENCE_NUM_THREADS': torch.get_num_threads(),
        'PERFORMANCE_HINT': 'LATENCY',
    }
    return openvino.Core().compile_model(file, 'CPU', settings)
