import pytest
import torch
from helpers.variants import randomise_norms
from torch import nn

from lightvit_mm.layers import ConvNorm, ConvNormAct

BN = {'type': 'BN'}


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [(8, 9), (1, 1)])
def test_folding_keeps_the_outputs(stride, size):
    layer = ConvNormAct(4, 6, 3, stride, 2, norm_cfg=BN, act=nn.GELU).eval()
    randomise_norms(layer)
    x = torch.randn(2, 4, *size)
    expected = layer(x)
    torch.testing.assert_close(expected, nn.functional.gelu(layer.norm(layer.conv(x))))
    layer.fold()
    assert isinstance(layer.norm, nn.Identity)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_folding_keeps_the_padding_mode_and_the_kind_of_convolution():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    layer = ConvNorm(3, 5, 3, norm_cfg=BN).eval()
    layer.conv = Doubled(3, 5, 3, padding=1, padding_mode='reflect', bias=False)
    layer.fold()
    assert type(layer.conv) is Doubled
    assert layer.conv.padding_mode == 'reflect'


def test_a_silent_start():
    layer = ConvNorm(3, 5, norm_cfg=BN, norm_weight=0.0)
    assert not layer(torch.randn(2, 3, 4, 4)).any()
