"""Counts of parameters and multiply-accumulates against figures counted from the authors' code."""

import pytest
import torch

from lightvit_mm.backbones import EdgeViT
from lightvit_mm.measure.complexity import count_macs, count_parameters


@pytest.mark.parametrize(('arch', 'gmacs'), [('xxs', 0.551), ('xs', 1.128), ('s', 1.911)])
def test_edgevit(arch, gmacs):
    assert count_macs(EdgeViT(arch=arch), 224, 224) / 1e9 == pytest.approx(gmacs, rel=2e-3)


def test_by_hand():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.ReLU())
    assert count_parameters(model) == 8 * 27 + 8
    assert count_macs(model.train(), 10, 7) == 5 * 4 * 8 * 27
    assert model.training
