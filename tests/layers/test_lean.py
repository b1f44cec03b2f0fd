import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightvit_mm.deploy.packed import Conv2d, Linear
from lightvit_mm.layers import ConvNorm, chain, feed_forward, lean, norm_act_conv

ACTIVATIONS = {None: lambda x: x, 'relu': F.relu, 'gelu': F.gelu, 'silu': F.silu}
GEOMETRIES = {
    'pointwise': {'kernel_size': 1},
    'pointwise without bias': {'kernel_size': 1, 'bias': False},
    'depthwise': {'kernel_size': 5, 'padding': 2, 'groups': 8, 'bias': False},
    'strided': {'kernel_size': 3, 'padding': 1, 'stride': 2},
}


def norm_with_history(channels: int, training: bool = True) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels).train(training)
    with torch.no_grad():
        norm.weight.uniform_(-1, 2)
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm


def channels_last(*shape: int) -> torch.Tensor:
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    return x.requires_grad_()


def kept_for_backward(function, *args) -> list[torch.Tensor]:
    """The tensors that autograd keeps while a function runs, parameters aside."""
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        function(*args)
    return [tensor for tensor in kept if not isinstance(tensor, nn.Parameter)]


def is_lean(out: torch.Tensor) -> bool:
    return 'NormActConv' in out.grad_fn.name()


@pytest.mark.parametrize('pieces', [1, 3], ids='pieces={}'.format)
@pytest.mark.parametrize('training', [True, False], ids='training={}'.format)
@pytest.mark.parametrize('act', ACTIVATIONS)
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_computes_what_autograd_does(geometry, act, training, pieces, monkeypatch):
    norm, conv = norm_with_history(8, training), nn.Conv2d(8, 16, **GEOMETRIES[geometry])
    x = channels_last(4, 8, 13, 11)
    monkeypatch.setattr(lean, 'PIECE_BYTES', x.nbytes // pieces)
    other_norm, other_conv = copy.deepcopy((norm, conv))
    other_x = x.detach().clone().requires_grad_()

    out = norm_act_conv(x, norm, act, conv)
    expected = other_conv(ACTIVATIONS[act](other_norm(other_x)))
    assert is_lean(out)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(expected)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, other_x.grad, rtol=1e-4, atol=1e-5)
    for module, other in ((norm, other_norm), (conv, other_conv)):
        for name, parameter in other.named_parameters():
            gradient = module.get_parameter(name).grad
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(dict(module.named_buffers()), dict(other.named_buffers()))


@pytest.mark.parametrize('momentum', [0.1, 0.0, None])
def test_counts_batches_as_batchnorm_does(momentum):
    norm, conv = norm_with_history(8), nn.Conv2d(8, 8, 1)
    norm.momentum = momentum
    other = copy.deepcopy(norm)
    for _ in range(3):
        x = channels_last(2, 8, 5, 5)
        assert is_lean(norm_act_conv(x, norm, 'relu', conv))
        other(x)
    torch.testing.assert_close(dict(norm.named_buffers()), dict(other.named_buffers()))


def test_keeps_the_input_only():
    norm, conv = norm_with_history(8), nn.Conv2d(8, 16, 1)
    x = channels_last(2, 8, 9, 9)
    maps = [t for t in kept_for_backward(norm_act_conv, x, norm, 'gelu', conv) if t.dim() == 4]
    assert [t.data_ptr() for t in maps] == [x.data_ptr()]


@pytest.mark.parametrize('act', ['gelu', 'silu'])
@pytest.mark.parametrize('kind', ['linear', 'convolutions'])
def test_feed_forward_computes_what_autograd_does(kind, act):
    if kind == 'linear':
        fc1, fc2, x = Linear(8, 24), Linear(24, 8), torch.randn(2, 5, 7, 8)
    else:
        fc1, fc2, x = Conv2d(8, 24, 1), Conv2d(24, 8, 1, bias=False), channels_last(2, 8, 5, 7)
    others = copy.deepcopy((fc1, fc2))
    x = x.detach().requires_grad_()
    other_x = x.detach().clone().requires_grad_()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        out = feed_forward(x, fc1, act, fc2)
        # Two inputs and the hidden layer, not what the activation makes of it.
        kept = kept_for_backward(feed_forward, x, fc1, act, fc2)
    finally:
        torch.set_num_threads(threads)
    expected = others[1](ACTIVATIONS[act](others[0](other_x)))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    hidden = 24 * x.numel() // 8
    assert sum(tensor.numel() == hidden for tensor in kept) == 1
    weights = torch.randn_like(expected)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, other_x.grad, rtol=1e-4, atol=1e-5)
    for layer, other in zip((fc1, fc2), others, strict=True):
        for name, parameter in other.named_parameters():
            gradient = layer.get_parameter(name).grad
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-4)


def test_a_single_pixel_is_refused_as_batchnorm_refuses_it():
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        norm_act_conv(channels_last(1, 8, 1, 1), norm_with_history(8), None, nn.Conv2d(8, 8, 1))


@pytest.mark.parametrize('why', ['no gradients', 'autocast', 'double', 'group norm', 'hook'])
def test_is_the_plain_computation_elsewhere(why):
    norm, conv = norm_with_history(8), nn.Conv2d(8, 8, 1)
    x, called = channels_last(2, 8, 5, 5), []
    if why == 'double':
        norm, conv, x = norm.double(), conv.double(), x.detach().double().requires_grad_()
    if why == 'group norm':
        norm = nn.GroupNorm(2, 8)
    if why == 'hook':
        norm.register_forward_hook(lambda *args: called.append(args))
    with (
        torch.set_grad_enabled(why != 'no gradients'),
        torch.autocast('cpu', enabled=why == 'autocast'),
    ):
        out = norm_act_conv(x, norm, 'relu', conv)
    assert out.grad_fn is None or not is_lean(out)
    assert bool(called) == (why == 'hook')


def test_works_under_functorch():
    norm, conv = norm_with_history(8, training=False), nn.Conv2d(8, 8, 1)
    x = channels_last(2, 8, 5, 5)
    norm_act_conv(x, norm, 'silu', conv).sum().backward()
    gradient = torch.func.grad(lambda x: norm_act_conv(x, norm, 'silu', conv).sum())(x.detach())
    torch.testing.assert_close(gradient, x.grad)


def test_a_chain_calls_layers_that_somebody_listens_to():
    layers = [ConvNorm(4, 4, norm_cfg={'type': 'BN'}) for _ in range(3)]
    x = channels_last(2, 4, 6, 6)
    quiet, called = chain(x, 'relu', *layers, last_act='silu'), []
    layers[1].register_forward_hook(lambda *args: called.append(args))
    torch.testing.assert_close(chain(x, 'relu', *layers, last_act='silu'), quiet)
    assert called
