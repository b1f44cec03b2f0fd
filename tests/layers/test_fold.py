"""The arithmetic of folding, and what it refuses."""

import pytest
import torch
from helpers.variants import largest_deviation, randomise_norms
from mmcv.cnn import ConvModule
from torch import nn

from lightvit_mm.layers.fold import (
    add_identity_to_depthwise,
    batch_norm_affine,
    fold_affine_into_next_linear,
    fold_conv_modules,
    fold_norm_into_next_pointwise,
    fold_norm_into_transposed_conv,
    fuse_conv_and_norm,
    norm_to_depthwise,
)


def test_norm_into_pointwise():
    norm, conv = nn.BatchNorm2d(6), nn.Conv2d(6, 9, 1)
    model = nn.Sequential(norm, conv).eval()
    randomise_norms(model)
    x = torch.randn(2, 6, 5, 7)
    with torch.no_grad():
        expected = model(x)
        fold_norm_into_next_pointwise(norm, conv)
        torch.testing.assert_close(conv(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('groups', [1, 3])
def test_conv_and_norm(groups, bias):
    conv = nn.Conv2d(6, 9, 3, stride=2, padding=1, groups=groups, bias=bias)
    model = nn.Sequential(conv, nn.BatchNorm2d(9)).eval()
    randomise_norms(model)
    x = torch.randn(2, 6, 5, 7)
    with torch.no_grad():
        fused = fuse_conv_and_norm(*model)
        torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('affine', [True, False])
def test_norm_to_depthwise(affine):
    norm = nn.BatchNorm2d(6, affine=affine).eval()
    nn.init.uniform_(norm.running_var, 0.1, 3)
    nn.init.normal_(norm.running_mean)
    x = torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(norm_to_depthwise(norm)(x), norm(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('size', [1, 3, 5])
def test_identity_into_depthwise(size):
    conv = nn.Conv2d(6, 6, size, padding=size // 2, groups=6)
    x = torch.randn(2, 6, 5, 7)
    with torch.no_grad():
        expected = x + conv(x)
        add_identity_to_depthwise(conv)
        torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize(
    'conv',
    [
        nn.Conv2d(6, 6, 3, padding=1),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.Conv2d(6, 6, 3, padding=1, stride=2, groups=6),
        nn.Conv2d(6, 6, 2, padding=1, groups=6),
    ],
    ids=['dense', 'shrinking', 'strided', 'even'],
)
def test_no_identity_into_other_convolutions(conv):
    with pytest.raises(TypeError, match='expected'):
        add_identity_to_depthwise(conv)


def test_what_cannot_be_folded():
    with pytest.raises(TypeError, match='GroupNorm'):
        batch_norm_affine(nn.GroupNorm(2, 6))
    with pytest.raises(TypeError, match='running statistics'):
        batch_norm_affine(nn.BatchNorm2d(6, track_running_stats=False))
    with pytest.raises(TypeError, match='1x1'):
        fold_norm_into_next_pointwise(nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3))


def test_norm_into_transposed_conv():
    conv, norm = nn.ConvTranspose2d(6, 9, 2, stride=2), nn.BatchNorm2d(9)
    model = nn.Sequential(conv, norm).eval()
    randomise_norms(model)
    x = torch.randn(2, 6, 5, 7)
    with torch.no_grad():
        expected = model(x)
        fold_norm_into_transposed_conv(conv, norm)
        torch.testing.assert_close(conv(x), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(TypeError, match='dense transposed'):
        fold_norm_into_transposed_conv(nn.ConvTranspose2d(9, 9, 2, groups=9), norm)


@torch.no_grad()
def test_convolutions_that_several_norms_share():
    first, second = (ConvModule(6, 6, 3, padding=1, norm_cfg={'type': 'BN'}) for _ in range(2))
    second.conv = first.conv  # as in RTMDet's head, for each level
    model = nn.ModuleList([first, second]).eval()
    randomise_norms(model)
    x = torch.randn(2, 6, 5, 7)
    expected = [module(x) for module in model]
    fold_conv_modules(model)
    assert largest_deviation([module(x) for module in model], expected) < 1e-5
    assert not [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def test_modules_that_cannot_be_folded_stay():
    model = nn.Sequential(
        ConvModule(6, 6, 1, norm_cfg={'type': 'GN', 'num_groups': 2}),
        ConvModule(6, 6, 1, norm_cfg={'type': 'BN'}, order=('norm', 'conv', 'act')),
        ConvModule(6, 6, 1, norm_cfg={'type': 'BN', 'track_running_stats': False}),
        ConvModule(6, 6, 2, norm_cfg={'type': 'BN'}, conv_cfg={'type': 'deconv'}),
    ).eval()
    randomise_norms(model[1::2])
    x = torch.randn(2, 6, 5, 7)
    expected = model(x)
    fold_conv_modules(model)
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize('bias', [True, False])
def test_affine_into_linear(bias):
    norm, linear = nn.LayerNorm(6), nn.Linear(6, 9, bias=bias)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, 6)
    with torch.no_grad():
        expected = linear(norm(x))
        fold_affine_into_next_linear(norm, linear)
        torch.testing.assert_close(linear(norm(x)), expected, rtol=1e-5, atol=1e-5)
    assert not list(norm.parameters())
