"""The variants that the contract is tested over, and how far two pyramids are apart."""

import itertools

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightvit_mm.backbones import families

FAMILIES = [family.backbone for family in families.FAMILIES.values()]
VARIANTS = [
    pytest.param(family, arch, id=f'{family.__name__}-{arch}')
    for family in FAMILIES
    for arch in family.arch_settings
]
SMALLEST = [
    pytest.param(family, next(iter(family.arch_settings)), id=family.__name__)
    for family in FAMILIES
]


def randomise_norms(model: torch.nn.Module) -> None:
    """Give BatchNorms statistics and affine parameters that hide no mistake in a folding."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            torch.nn.init.normal_(module.running_mean, std=0.5)
            torch.nn.init.uniform_(module.running_var, 0.3, 3.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.5)


def largest_deviation(outputs, expected) -> float:
    """Largest difference of two pyramids, in standard deviations of each level."""
    return max(
        ((a - b).abs().max() / b.std(correction=0).clamp(min=1e-12)).item()
        for a, b in itertools.zip_longest(outputs, expected)
    )


class LargestTensor(TorchDispatchMode):
    """Number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return out
