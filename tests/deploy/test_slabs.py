import pytest
import torch
from conftest import SMALLEST, largest_deviation, randomise_norms
from torch import nn

from lightvit_mm.backbones import MobileViT
from lightvit_mm.benchmark.profiling import peak_memory
from lightvit_mm.deploy import slabs
from lightvit_mm.deploy.packed import Conv2d, Linear, packing_available
from lightvit_mm.layers import ConvNorm, chain, feed_forward

pytestmark = pytest.mark.skipif(not packing_available(), reason='this torch cannot pack weights')

# Of each layer: kernel size, stride, whether it is depthwise.
CHAINS = {
    'feed-forward': [(1, 1, False), (1, 1, False)],
    'inverted residual': [(1, 1, False), (3, 1, True), (1, 1, False)],
    'downsampling': [(1, 1, False), (5, 2, True), (1, 1, False)],
    'stem': [(3, 2, False), (3, 2, False)],
    'deep': [(3, 1, False), (7, 1, True), (3, 2, False), (3, 2, True), (1, 1, False)],
}


@pytest.fixture
def counts(monkeypatch) -> list[int]:
    """Slabs of each call, with maps of any size in slabs of 1 KiB."""
    calls: list[int] = []

    def count(*args, decide=slabs._count):
        calls.append(decide(*args))
        return calls[-1]

    monkeypatch.setattr(slabs, '_count', count)
    monkeypatch.setattr(slabs, 'WIDEST', 2**10)
    monkeypatch.setattr(slabs, 'SLAB', 2**10)
    return calls


def deployed(layers: nn.Module) -> nn.Module:
    """With all norms folded and all weights packed."""
    randomise_norms(layers)
    for module in list(layers.modules()):
        if hasattr(module, 'fold'):
            module.fold()
    return layers.eval()


def conv_norms(geometries: list[tuple[int, int, bool]]) -> nn.ModuleList:
    return nn.ModuleList(
        ConvNorm(8, 8, kernel, stride, 8 if depthwise else 1, norm_cfg={'type': 'BN'})
        for kernel, stride, depthwise in geometries
    )


def one_by_one(x: torch.Tensor, layers: nn.ModuleList) -> torch.Tensor:
    for layer in layers:
        x = layer(x, 'gelu')
    return x


@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('size', [(37, 30), (24, 24), (5, 70), (1, 90)], ids=str)
@pytest.mark.parametrize('geometries', CHAINS.values(), ids=CHAINS)
def test_chains_in_slabs_compute_the_same(counts, geometries, size, batch):
    layers = deployed(conv_norms(geometries))
    x = torch.randn(batch, 8, *size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        out = chain(x, 'gelu', *layers, last_act='gelu')
        expected = one_by_one(x, layers)
    assert max(counts) > 1
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('shape', [(2, 9, 11, 8), (1, 4, 100, 8), (333, 8)], ids=str)
def test_feed_forward_in_slabs_computes_the_same(counts, shape, dtype):
    fc1, fc2 = deployed(nn.ModuleList([Linear(8, 24), Linear(24, 16)]))
    x = torch.randn(shape)
    with torch.no_grad(), torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        out = feed_forward(x, fc1, 'silu', fc2)
        expected = fc2(fc1(x, 'silu'))
    assert max(counts) > 1
    assert out.dtype == expected.dtype
    torch.testing.assert_close(out, expected)


def test_feed_forward_of_convolutions_is_in_slabs(counts):
    fc1, fc2 = deployed(nn.ModuleList([Conv2d(8, 24, 1), Conv2d(24, 8, 1)]))
    x = torch.randn(1, 8, 20, 20)
    with torch.no_grad():
        torch.testing.assert_close(feed_forward(x, fc1, 'gelu', fc2), fc2(fc1(x, 'gelu')))
    assert max(counts) > 1


@pytest.mark.parametrize('why', ['gradients', 'hook', 'small', 'training form'])
def test_else_maps_stay_whole(counts, why):
    layers = conv_norms(CHAINS['inverted residual'])
    layers = layers.eval() if why == 'training form' else deployed(layers)
    shapes = []
    if why == 'hook':
        layers[1].conv.register_forward_hook(lambda module, args, out: shapes.append(out.shape))
    x = torch.randn(1, 8, 2, 2) if why == 'small' else torch.randn(1, 8, 20, 20)
    with torch.set_grad_enabled(why == 'gradients'):
        torch.testing.assert_close(
            chain(x, 'gelu', *layers, last_act='gelu'), one_by_one(x, layers)
        )
    assert set(counts) <= {1}
    assert shapes == [x.shape] * 2 * (why == 'hook')


@pytest.mark.parametrize(('family', 'arch'), SMALLEST)
def test_backbones(counts, family, arch, monkeypatch):
    model = family(arch=arch)
    randomise_norms(model)
    model = model.eval().switch_to_deploy()
    images = torch.randn(1, 3, 97, 131)
    with torch.inference_mode():
        outputs = model(images)
        in_slabs, counts[:] = max(counts, default=1), []
        monkeypatch.setattr(slabs, 'WIDEST', 2**25)
        expected = model(images)
    assert max(counts, default=1) == 1
    assert in_slabs > 1
    assert largest_deviation(outputs, expected) < 1e-4


def test_less_memory(monkeypatch):
    model = MobileViT(arch='s', out_indices=[0]).eval().switch_to_deploy()
    images = torch.randn(1, 3, 256, 256)

    @torch.inference_mode()
    def peak() -> int:
        model(images)
        return peak_memory(lambda: model(images), 'cpu')

    whole = peak()
    monkeypatch.setattr(slabs, 'WIDEST', 2**20)
    monkeypatch.setattr(slabs, 'SLAB', 2**19)
    assert peak() < 0.7 * whole
