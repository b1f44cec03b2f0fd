"""Floors and ceilings: sizes counted by hand, arithmetic on made-up machines."""

import pytest
import torch.nn.functional as F
from torch import nn

from lightvit_mm.backbones import RepViT
from lightvit_mm.measure import limits
from lightvit_mm.measure.limits import Ceilings, count_moved, floors, measure_ceilings


class Mixed(nn.Module):
    """One convolution, one linear layer and one attention, with other operators between."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.linear = nn.Linear(8, 8, bias=False)

    def forward(self, x):
        tokens = self.conv(x).relu().flatten(2).transpose(1, 2) + 1  # (1, 24, 8)
        tokens = self.linear(tokens)[:, None]
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


@pytest.mark.parametrize('batch', [1, 2])
def test_moved_by_hand(batch):
    weights = 8 * 3 * 9 + 8 * 8
    maps = (3 + 8) * 24 + 2 * 8 * 24 + 4 * 8 * 24
    assert count_moved(Mixed().train(), (batch, 3, 4, 6)) == weights + batch * maps


def test_moved_by_a_deploy_form():
    # The weights are read once, whatever the batch size.
    model = RepViT(arch='m0_6', out_indices=(0,)).eval().switch_to_deploy()
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    weights = sum(p.numel() for module in convolutions for p in module.parameters())
    moved = [count_moved(model, (batch, 3, 32, 32)) for batch in (1, 2)]
    assert 2 * moved[0] - moved[1] == weights


def test_floors():
    machine = Ceilings(gflops=100.0, product='1x1x1', copy_gb=10.0)
    least = floors(macs=10**9, moved=10**9, dtype='fp32', ceilings=machine)
    assert least.compute == pytest.approx(0.02)
    assert least.memory == pytest.approx(0.4)
    assert least.larger == least.memory
    trained = floors(macs=10**9, moved=10**7, dtype='bf16', ceilings=machine, train=True)
    assert trained.compute == trained.larger == pytest.approx(0.06)
    assert trained.memory == pytest.approx(0.006)


def test_ceilings(monkeypatch):
    monkeypatch.setattr(limits, 'PRODUCTS', ((8, 8, 8),))
    monkeypatch.setattr(limits, 'SQUARE', {'cpu': 128})
    monkeypatch.setattr(limits, 'COPIED_BYTES', 2**20)
    times = {'8x8x8': 1e-6, '8x8x8 convolved': 1e-6, 'copy': 1e-3}
    times.update({'128x128x128': 2e-4, '128x128x128 convolved': 1e-4})
    shapes = {}

    def take_turns(calls, *_):
        shapes.update({name: call().shape for name, call in calls.items()})
        return {name: [times[name]] * 3 for name in calls}

    monkeypatch.setattr(limits, 'alternate', take_turns)
    machine = measure_ceilings()
    assert shapes['128x128x128'] == (128, 128)
    assert shapes['128x128x128 convolved'] == (1, 128, 128, 1)
    assert machine.product == '128x128x128 convolved'
    assert machine.gflops == pytest.approx(2 * 128**3 / 1e-4 / 1e9)
    assert machine.copy_gb == pytest.approx(2 * 2**20 / 1e-3 / 1e9)
