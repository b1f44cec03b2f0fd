"""Peak memory and profiles of calls whose allocations and operators are known."""

import torch
from torch import nn

from lightvit_mm.measure.profiling import peak_memory, top_operators


def test_peak_memory():
    kept = torch.ones(1000)

    def call():
        a = torch.empty(1_000_000)
        b = torch.empty(2_000_000)
        del a
        c = torch.empty(500_000)
        return b, c, kept

    assert peak_memory(call, 'cpu') == 4 * 3_000_000


def test_gradients_count():
    model = nn.Linear(1000, 1000, bias=False)

    def call():
        model(torch.ones(1, 1000)).sum().backward()
        model.zero_grad(set_to_none=True)

    peak = peak_memory(call, 'cpu')
    assert 4 * 1000 * 1000 <= peak <= 2.1 * 4 * 1000 * 1000


def test_top_operators():
    x = torch.randn(300, 300)

    def call():
        y = x @ x
        return y + 1, y + 2

    operators = top_operators(call, 'cpu')
    assert operators[0].name == 'aten::mm'
    assert {each.name: each.calls for each in operators}['aten::add'] == 2
    assert abs(sum(each.share for each in operators) - 1) < 1e-6
    assert operators == sorted(operators, key=lambda each: -each.milliseconds)
