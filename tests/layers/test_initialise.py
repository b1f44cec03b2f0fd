"""Building without values."""

import pytest
import torch
from helpers.variants import TINY

from lightvit_mm.layers.initialise import shapes_only


@pytest.mark.parametrize(('family', 'arch'), TINY)
@pytest.mark.parametrize('deploy', [False, True])
def test_shapes_without_values(family, arch, deploy):
    with shapes_only():
        built = family(arch=arch, deploy=deploy).state_dict()
    expected = family(arch=arch, deploy=deploy).state_dict()
    assert {name: value.shape for name, value in built.items()} == {
        name: value.shape for name, value in expected.items()
    }
    assert {value.device.type for value in built.values()} == {'meta'}


def test_nothing_is_filled_inside_and_everything_after():
    filled = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            filled.append(func.__name__.split('.')[0])
            return func(*args, **(kwargs or {}))

    with shapes_only(), Watch():
        torch.nn.Conv2d(3, 4, 3)
        torch.nn.LayerNorm(4)
    assert not [name for name in filled if name.endswith('_')]
    assert torch.nn.Conv2d(3, 4, 3).weight.std() > 0
