"""Inside a backbone, torch's modules can be wrapped, hooked, frozen, pruned and differentiated."""

import collections
import copy
import re

import pytest
import torch
from helpers.variants import TINY, largest_deviation, randomise_norms
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils._python_dispatch import TorchDispatchMode

from lightvit_mm.backbones.edgevit import ConvPosEmbed, LocalProp
from lightvit_mm.backbones.efficientvit import DistanceBias
from lightvit_mm.backbones.repvit import ScaleAndIdentity
from lightvit_mm.backbones.shuffle_vit import Upsample2

OWN_LAYERS = {
    ConvPosEmbed: 'adds its input, which its fold() puts into the kernel',
    LocalProp: 'is depthwise with a stride of its kernel size: an outer product',
    ScaleAndIdentity: 'adds its input, which is cheaper than two passes',
    Upsample2: 'fixes the arguments of a transposed convolution',
    DistanceBias: 'is a table of attention biases',
}
ACTIVATIONS = {
    'EdgeViT': {nn.GELU},
    'MobileViT': {nn.SiLU},
    'RepViT': {nn.GELU, nn.ReLU, nn.Sigmoid},
    'EfficientViT': {nn.ReLU, nn.Sigmoid},
    'ShuffleSwin': {nn.GELU},
    'ShuffleDeiT': {nn.GELU},
    'ShuffleT2TViT': {nn.GELU},
}
aten = torch.ops.aten
ACTIVATION_OPS = {
    aten.gelu.default: nn.GELU,
    aten.gelu_.default: nn.GELU,
    aten.relu.default: nn.ReLU,
    aten.relu_.default: nn.ReLU,
    aten.sigmoid.default: nn.Sigmoid,
    aten.sigmoid_.default: nn.Sigmoid,
    aten.silu.default: nn.SiLU,
    aten.silu_.default: nn.SiLU,
    aten.clamp_min.default: nn.ReLU,
    aten.clamp_min_.default: nn.ReLU,
}
STEP = 1e-8
LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


each_family = pytest.mark.parametrize(('family', 'arch'), TINY)
either_form = pytest.mark.parametrize('form', ['train', 'deploy'])


def build(family, arch, form):
    model = family(arch=arch)
    randomise_norms(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.eval().switch_to_deploy() if form == 'deploy' else model.train()


def images():
    return torch.randn(2, 3, 96, 128)


def loss_of(outputs):
    return sum(output.square().mean() for output in outputs)


def layers_of(model, kinds=LAYERS):
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


class LowRank(nn.Module):
    """A layer and a low-rank adapter beside it, as of LoRA; it has no other attributes."""

    def __init__(self, layer, rank=2):
        super().__init__()
        self.layer = layer
        if isinstance(layer, nn.Linear):
            self.adapter = nn.Sequential(
                nn.Linear(layer.in_features, rank, bias=False),
                nn.Linear(rank, layer.out_features, bias=False),
            )
        else:
            self.adapter = nn.Sequential(
                nn.Conv2d(
                    layer.in_channels,
                    rank,
                    layer.kernel_size,
                    layer.stride,
                    layer.padding,
                    bias=False,
                ),
                nn.Conv2d(rank, layer.out_channels, 1, bias=False),
            )

    def forward(self, x):
        return self.layer(x) + self.adapter(x)


@each_family
@either_form
def test_every_layer_can_have_an_adapter(family, arch, form):
    model = build(family, arch, form)
    x = images()
    before = [output.detach() for output in model(x)]
    layers = layers_of(model, (nn.Linear, nn.Conv2d))
    for name in layers:
        parent, _, child = name.rpartition('.')
        setattr(model.get_submodule(parent), child, LowRank(layers[name]))
    model.requires_grad_(False)
    adapters = {n: m.adapter for n, m in model.named_modules() if isinstance(m, LowRank)}
    assert len(adapters) == len(layers)
    for adapter in adapters.values():
        adapter.requires_grad_(True)
    outputs = model(x)
    assert largest_deviation(outputs, before) > 1e-2
    loss_of(outputs).backward()
    idle = [
        name
        for name, adapter in adapters.items()
        for parameter in adapter.parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not idle


@each_family
@either_form
def test_hooks_of_every_layer_fire(family, arch, form):
    model = build(family, arch, form)
    layers = layers_of(
        model, (*LAYERS, nn.LayerNorm, nn.BatchNorm2d, *ACTIVATIONS[family.__name__])
    )
    fired = []
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda *_, name=name: fired.append(name))
        layer.register_forward_hook(lambda *_, name=name: fired.append(name))
    model(images())
    assert collections.Counter(fired) == dict.fromkeys(layers, 2)


@each_family
@either_form
def test_frozen_parameters_get_no_gradient(family, arch, form):
    model = build(family, arch, form)
    parameters = dict(model.named_parameters())
    frozen = set(list(parameters)[::2])
    for name in frozen:
        parameters[name].requires_grad_(False)
    loss_of(model(images())).backward()
    for name, parameter in parameters.items():
        assert (parameter.grad is None) is (name in frozen), name


@each_family
def test_a_deployed_network_follows_its_weights(family, arch):
    model = build(family, arch, 'deploy')
    x = images()
    with torch.no_grad():
        before = model(x)
        for parameter in model.parameters():
            parameter.data.mul_(1.0625)
        outputs = model(x)
        fresh = family(arch=arch, deploy=True).eval()
        fresh.load_state_dict(model.state_dict())
        assert largest_deviation(outputs, fresh(x)) < 1e-5
        assert largest_deviation(outputs, before) > 1e-2


@each_family
def test_pruning(family, arch):
    model = build(family, arch, 'train')
    x = images()
    layers = layers_of(model)
    # Pruning in torch 2.13 looks at a weight by view(-1), which no other layout has.
    model.to(memory_format=torch.contiguous_format)
    for layer in layers.values():
        prune.l1_unstructured(layer, 'weight', amount=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(model(x)).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        pruned = model(x)
        for name, layer in layers.items():
            assert layer.weight_orig.grad.any(), name
            prune.remove(layer, 'weight')
            assert (layer.weight == 0).float().mean() >= 0.4, name
        assert largest_deviation(model(x), pruned) < 1e-5


@each_family
def test_weight_norm(family, arch):
    model = build(family, arch, 'train')
    x = images()
    reference = copy.deepcopy(model)
    layers = layers_of(model)
    for layer in layers.values():
        parametrizations.weight_norm(layer)
    assert largest_deviation(model(x), reference(x)) < 1e-3
    loss_of(model(x)).backward()
    for name, layer in layers.items():
        assert parametrize.is_parametrized(layer)
        assert layer.parametrizations.weight.original0.grad.any(), name
        assert layer.parametrizations.weight.original1.grad is not None, name


@each_family
def test_folding_changed_weights(family, arch):
    model = build(family, arch, 'train').eval().to(memory_format=torch.contiguous_format)
    for number, layer in enumerate(layers_of(model).values()):
        if number % 2:
            parametrizations.weight_norm(layer)
        else:
            prune.l1_unstructured(layer, 'weight', amount=0.5)
    x = images()
    with torch.no_grad():
        expected = model(x)
        assert largest_deviation(model.switch_to_deploy()(x), expected) < 1e-4


@each_family
def test_double_backward(family, arch):
    """The derivatives of a gradient penalty are those of finite differences."""
    model = build(family, arch, 'train').double()
    x = images().double()
    # The stem of T2T-ViT computes in single precision, which is too coarse for differences.
    parameters = [p for name, p in model.named_parameters() if not name.startswith('stem.')]
    directions = [torch.randn_like(p) * p.detach().abs().mean() for p in parameters]

    def log_penalty():
        with sdpa_kernel(SDPBackend.MATH):  # torch 2.13's fused attention has no second derivative
            gradients = torch.autograd.grad(loss_of(model(x)), parameters, create_graph=True)
        return sum(gradient.square().sum() for gradient in gradients).log()

    log_penalty().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None and p.grad.any() for p in model.stem.parameters())
    slope = sum(
        (parameter.grad * direction).sum()
        for parameter, direction in zip(parameters, directions, strict=True)
        if parameter.grad is not None
    )
    values = []
    for steps in (1, -2):
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.data.add_(direction, alpha=steps * STEP)
        values.append(log_penalty().item())
    assert slope.item() == pytest.approx((values[0] - values[1]) / (2 * STEP), rel=1e-3)


@each_family
@either_form
def test_functional_gradients(family, arch, form):
    model = build(family, arch, form)
    x = images()
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def loss(parameters, buffers):
        return loss_of(torch.func.functional_call(model, (parameters, buffers), (x,)))

    gradients = torch.func.grad(loss)(parameters, buffers)
    loss_of(model(x)).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-5, msg=name)


@each_family
@either_form
def test_gradients_of_each_image(family, arch, form):
    model = build(family, arch, form).eval()
    x = images()
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(parameters, image):
        return loss_of(torch.func.functional_call(model, parameters, (image[None],)))

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for index, image in enumerate(x):
        model.zero_grad()
        loss_of(model(image[None])).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(
                gradients[name][index], parameter.grad, rtol=1e-3, atol=1e-5, msg=name
            )


@each_family
@either_form
def test_tracing_keeps_the_gradients(family, arch, form):
    model = build(family, arch, form).eval()
    traced = torch.jit.trace(copy.deepcopy(model), images(), check_trace=False)
    x = images()
    outputs, expected = traced(x), model(x)
    assert largest_deviation(outputs, expected) < 1e-5
    loss_of(outputs).backward()
    loss_of(expected).backward()
    for (name, a), b in zip(traced.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5, msg=name)


@each_family
@either_form
def test_layers_are_torchs(family, arch, form):
    model = build(family, arch, form)
    for name, module in model.named_modules():
        if list(module.parameters(recurse=False)) and not list(module.children()):
            kind = type(module)
            assert kind.__module__.startswith('torch.nn.') or kind in OWN_LAYERS, name
            if kind in OWN_LAYERS:
                assert kind.__bases__[0].__module__.startswith('torch.nn.'), name
    printed = set(re.findall(r'\): (\w+)\(', str(model)))
    assert {kind.__name__ for kind in ACTIVATIONS[family.__name__]} <= printed


class CountActivations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in ACTIVATION_OPS:
            self.counts[ACTIVATION_OPS[func]] += 1
        return func(*args, **(kwargs or {}))


@each_family
@either_form
def test_every_activation_is_a_module(family, arch, form):
    model = build(family, arch, form)
    called = collections.Counter()
    for module in layers_of(model, tuple(ACTIVATION_OPS.values())).values():
        module.register_forward_hook(lambda module, *_: called.update([type(module)]))
    with CountActivations() as ran:
        model(images())
    assert ran.counts == called
    assert set(called) == ACTIVATIONS[family.__name__]
