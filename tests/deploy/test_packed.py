import copy
import io
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightvit_mm.deploy import packed
from lightvit_mm.deploy.packed import Conv2d, Linear

GEOMETRIES = {
    'pointwise': {'in_channels': 6, 'out_channels': 20, 'kernel_size': 1},
    'dense': {'in_channels': 3, 'out_channels': 8, 'kernel_size': 3, 'stride': 2, 'padding': 1},
    'depthwise': {
        'in_channels': 12,
        'out_channels': 12,
        'kernel_size': 5,
        'padding': 2,
        'groups': 12,
    },
    'without bias': {'in_channels': 6, 'out_channels': 9, 'kernel_size': 1, 'bias': False},
}
ACTIVATIONS = {None: lambda x: x, 'relu': F.relu, 'gelu': F.gelu, 'silu': F.silu}

needs_packing = pytest.mark.skipif(
    not packed.packing_available(), reason='this torch has no oneDNN with packed weights'
)


def folded_conv(**geometry) -> tuple[Conv2d, torch.Tensor]:
    conv = Conv2d(**geometry).to(memory_format=torch.channels_last)
    conv.fold()
    return conv, torch.randn(2, conv.in_channels, 11, 14)


@needs_packing
@pytest.mark.parametrize('act', ACTIVATIONS)
@pytest.mark.parametrize('name', GEOMETRIES)
def test_packed_convolution_computes_what_torch_does(name, act):
    conv, x = folded_conv(**GEOMETRIES[name])
    with torch.inference_mode():
        plain = F.conv2d(
            x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )
        out = conv(x, act)
    assert conv._packed
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, ACTIVATIONS[act](plain), rtol=1e-5, atol=1e-5)


@needs_packing
@pytest.mark.parametrize('act', ACTIVATIONS)
@pytest.mark.parametrize('shape', [(7,), (5, 7), (2, 3, 4, 7)], ids=str)
def test_packed_linear_computes_what_torch_does(shape, act):
    linear, x = Linear(7, 10), torch.randn(shape)
    linear.fold()
    with torch.inference_mode():
        expected = ACTIVATIONS[act](F.linear(x, linear.weight, linear.bias))
        out = linear(x, act)
    assert linear._packed
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@needs_packing
def test_autocast_and_bfloat16_are_packed_too():
    conv, x = folded_conv(**GEOMETRIES['pointwise'])
    with torch.inference_mode():
        expected = conv(x)
        with torch.autocast('cpu', torch.bfloat16):
            out = conv(x, 'relu')
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), F.relu(expected), rtol=0.05, atol=0.05)
    with torch.inference_mode():
        torch.testing.assert_close(conv(x), expected)
        assert conv.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@needs_packing
@pytest.mark.parametrize('change', ['in place', 'load', 'assign', 'data'])
def test_changed_weights_are_packed_anew(change):
    conv, x = folded_conv(**GEOMETRIES['pointwise'])
    other = nn.Conv2d(6, 20, 1)
    with torch.no_grad():
        before = conv(x)
        if change == 'in place':
            conv.weight.mul_(2)
            expected = before + F.conv2d(x, conv.weight / 2)
        else:
            if change == 'load':
                conv.load_state_dict(other.state_dict())
            elif change == 'assign':
                conv.load_state_dict(other.state_dict(), assign=True)
            else:
                conv.weight.data, conv.bias.data = other.weight.data, other.bias.data
            expected = other(x)
        torch.testing.assert_close(conv(x), expected, rtol=1e-5, atol=1e-5)


def asked_order(conv: Conv2d, x: torch.Tensor) -> torch.Tensor:
    """The weights as oneDNN wants them for an input of (1, C, H, W)."""
    if conv.kernel_size == (1, 1):
        rows = x.shape[2] * x.shape[3]
        return torch.ops.mkldnn._reorder_linear_weight(conv.weight.flatten(1), rows)
    return torch.ops.mkldnn._reorder_convolution_weight(
        conv.weight, conv.padding, conv.stride, conv.dilation, conv.groups, x.shape
    )


@needs_packing
@pytest.mark.parametrize('kernel_size', [1, 3])
def test_every_size_gets_the_order_it_asks_for(kernel_size):
    conv = Conv2d(256, 512, kernel_size, padding=kernel_size // 2)
    conv.fold()
    sides = (4, 8, 9, 16, 33, 64) if kernel_size == 1 else (4, 9, 33)
    describe = torch.ops.mkldnn._get_mkldnn_serialized_md
    with torch.inference_mode():
        for side in sides:
            x = torch.randn(1, 256, side, side)
            expected = F.conv2d(x, conv.weight, conv.bias, padding=conv.padding)
            torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-4)
            used = list(conv._packed.values())[-1]
            assert describe(used.weight).equal(describe(asked_order(conv, x)))
    # No more copies of the weights than there are orders.
    packs = list(conv._packed.values())
    assert len(packs) == len(sides)
    assert len({id(pack) for pack in packs}) == len({pack.order for pack in packs})


@needs_packing
def test_remembers_a_limited_number_of_sizes(monkeypatch):
    monkeypatch.setattr(packed, 'MOST_SHAPES', 3)
    conv, _ = folded_conv(**GEOMETRIES['depthwise'])
    with torch.inference_mode():
        for side in range(1, 9):
            x = torch.randn(1, 12, side, 5)
            torch.testing.assert_close(
                conv(x), F.conv2d(x, conv.weight, conv.bias, 1, 2, 1, 12), rtol=1e-5, atol=1e-5
            )
            assert len(conv._packed) <= 3


def test_copies_and_files_hold_plain_weights_only():
    conv, x = folded_conv(**GEOMETRIES['pointwise'])
    file = io.BytesIO()
    with torch.no_grad():
        expected = conv(x)
        torch.save(conv, file)
        file.seek(0)
        for other in (copy.deepcopy(conv), torch.load(file, weights_only=False)):
            assert not other._packed
            torch.testing.assert_close(other(x), expected)
    assert set(conv.state_dict()) == {'weight', 'bias'}


def test_gradients_flow_in_the_deploy_form():
    conv, x = folded_conv(**GEOMETRIES['pointwise'])
    conv(x, 'gelu').sum().backward()
    assert not conv._packed
    assert conv.weight.grad.abs().sum() > 0


def test_training_form_is_never_packed():
    conv = Conv2d(6, 20, 1)
    with torch.no_grad():
        conv(torch.randn(1, 6, 4, 4))
    assert not conv._packed


def test_a_torch_without_the_operators_does_without(monkeypatch):
    monkeypatch.setattr(packed, 'OPERATORS', ('_not_an_operator',))
    conv, x = folded_conv(**GEOMETRIES['dense'])
    with torch.no_grad():
        torch.testing.assert_close(
            conv(x, 'relu'), F.conv2d(x, conv.weight, conv.bias, 2, 1).relu()
        )
    assert not conv._packed


def test_odd_input_is_handled_as_torch_handles_it():
    conv, x = folded_conv(**GEOMETRIES['pointwise'])
    linear = Linear(7, 10)
    linear.fold()
    with torch.no_grad():
        assert conv(x[:0]).shape == (0, 20, 11, 14)
        assert linear(torch.zeros(3, 0, 7)).shape == (3, 0, 10)
        assert conv(x.double().float()[:, :, 3:4, 5:6]).shape == (2, 20, 1, 1)
        for layer, wrong in itertools.product((conv, linear), (torch.zeros(1, 5, 4, 5),)):
            with pytest.raises(RuntimeError):
                layer(wrong)
