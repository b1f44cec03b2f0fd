"""Floors and ceilings: bytes by hand, arithmetic on made-up machines."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightvit_mm.benchmark import limits
from lightvit_mm.benchmark.limits import Ceilings, count_bytes, floors, measure_ceilings


class Mixed(nn.Module):
    """One convolution, one linear layer and one attention, with things between."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.linear = nn.Linear(8, 8, bias=False)

    def forward(self, x):
        tokens = self.conv(x).relu().flatten(2).transpose(1, 2) + 1  # (1, 24, 8)
        tokens = self.linear(tokens)[:, None]
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


CONV = 3 * 24 + 8 * 3 * 9 + 8 * 24
LINEAR = 24 * 8 + 8 * 8 + 24 * 8
ATTENTION = 4 * 24 * 8


def test_bytes_by_hand():
    model, x = Mixed().eval(), torch.randn(1, 3, 4, 6)
    moved = count_bytes(model, x)
    # The fused attention also gives the logarithm of the sum of each row.
    assert moved == 4 * (CONV + LINEAR + ATTENTION + 24)


def test_bytes_under_autocast():
    model, x = Mixed().eval(), torch.randn(1, 3, 4, 6)
    with torch.autocast('cpu', torch.bfloat16):
        moved = count_bytes(model, x)
    assert moved == 2 * (CONV + LINEAR + ATTENTION) + 4 * 24


def test_floors():
    machine = Ceilings(gflops=100.0, product='1x1x1', copy_gb=10.0)
    least = floors(macs=10**9, moved=10**9, ceilings=machine)
    assert least.compute == pytest.approx(0.02)
    assert least.memory == pytest.approx(0.1)
    assert least.larger == least.memory
    trained = floors(macs=10**9, moved=10**7, ceilings=machine, train=True)
    assert trained.compute == trained.larger == pytest.approx(0.06)
    assert trained.memory == pytest.approx(0.003)


def test_ceilings(monkeypatch):
    monkeypatch.setattr(limits, 'PRODUCTS', ((8, 8, 8),))
    monkeypatch.setattr(limits, 'SQUARE', {'cpu': 128})
    monkeypatch.setattr(limits, 'COPIED_BYTES', 2**20)
    times = {'8x8x8': 1e-6, '128x128x128': 1e-4, 'copy': 1e-3}
    monkeypatch.setattr(
        limits, 'alternate', lambda calls, *_: [call() for call in calls.values()]
        and {name: [times[name]] * 3 for name in calls},
    )  # fmt: skip
    machine = measure_ceilings()
    assert machine.product == '128x128x128'
    assert machine.gflops == pytest.approx(2 * 128**3 / 1e-4 / 1e9)
    assert machine.copy_gb == pytest.approx(2 * 2**20 / 1e-3 / 1e9)
