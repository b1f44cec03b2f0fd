"""The networks' forms for runtimes whose tensors have few axes."""

import pytest
import torch
from helpers.variants import KINDS, largest_deviation, randomise_vectors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightvit_mm.export.low_rank import low_rank


class Shapes(TorchDispatchMode):
    """Keeps the shapes of all tensors that are computed."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        self.seen += [tuple(leaf.shape) for leaf in tree_leaves(out) if hasattr(leaf, 'shape')]
        return out


@pytest.mark.parametrize('make', KINDS)
@torch.no_grad()
def test_same_values_with_four_axes_besides_the_batch(make):
    backbone = make().eval()
    randomise_vectors(backbone)
    image = torch.rand(1, 3, 100, 150)
    form = low_rank(backbone)
    with Shapes() as shapes:
        levels = form(image)
    assert not [shape for shape in shapes.seen if len(shape) - (shape[:1] == (1,)) > 4]
    assert largest_deviation(levels, backbone(image)) < 1e-5
