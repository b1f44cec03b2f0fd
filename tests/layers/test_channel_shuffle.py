"""The channel shuffle module by itself."""

import pytest
import torch
from torch import nn

from lightvit_mm.backbones.shuffle_vit import GlobalAttention
from lightvit_mm.layers import ChannelShuffle, TransformerBlock
from lightvit_mm.layers.transformer import Shortcut


class Negate(nn.Module):
    def forward(self, x):
        return -x


def test_first_half_is_attended_and_channels_are_interleaved():
    x = torch.arange(8.0).expand(2, 5, 8)
    expected = torch.tensor([-0.0, 4, -1, 5, -2, 6, -3, 7])
    assert torch.equal(ChannelShuffle(Negate())(x), expected.expand(2, 5, 8))


def test_idle_half_has_no_influence_on_the_attended_one():
    block = TransformerBlock(GlobalAttention(8, 2, qkv_bias=True), 8, 4, 1e-6, rescale='learnable')
    module = ChannelShuffle(block)
    x = torch.randn(2, 5, 16)
    other = torch.cat((x[..., :8], torch.randn(2, 5, 8)), dim=-1)
    assert torch.equal(module(x)[..., ::2], module(other)[..., ::2])
    assert torch.equal(module(x)[..., ::2], block(x[..., :8]))
    assert torch.equal(module(other)[..., 1::2], other[..., 8:])


@pytest.mark.parametrize('shape', [(2, 5, 12), (2, 3, 4, 12)])
def test_wraps_any_block_with_channels_last(shape):
    block = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6))
    assert ChannelShuffle(block)(torch.randn(shape)).shape == shape


@pytest.mark.parametrize(
    ('rescale', 'scale', 'parameters'), [('learnable', 0.5, 1), ('fixed', 0.5, 0), ('none', 1, 0)]
)
def test_rescaling_is_of_the_shortcut(rescale, scale, parameters):
    shortcut = Shortcut(rescale)
    x, branch = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    torch.testing.assert_close(shortcut(x, branch), scale * x + branch)
    assert sum(p.numel() for p in shortcut.parameters()) == parameters
    if parameters:
        nn.init.constant_(shortcut.scale, -1.5)
        torch.testing.assert_close(shortcut(x, branch), -1.5 * x + branch)
        shortcut(x, branch).sum().backward()
        torch.testing.assert_close(shortcut.scale.grad, x.sum().view(1))


def test_both_residual_sums_of_a_block_are_rescaled():
    block = TransformerBlock(GlobalAttention(8, 2, qkv_bias=True), 8, 4, 1e-6, rescale='learnable')
    nn.init.constant_(block.shortcut1.scale, 0.25)
    nn.init.constant_(block.shortcut2.scale, 3.0)
    x = torch.randn(2, 5, 8)
    y = 0.25 * x + block.attn(block.norm1(x))
    torch.testing.assert_close(block(x), 3 * y + block.mlp(block.norm2(y)))


def test_unknown_rescaling():
    with pytest.raises(ValueError, match="'learnable', 'fixed', 'none'"):
        Shortcut('sigmoid')
