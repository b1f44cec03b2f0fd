"""The variants that the contract is tested over, and how far two pyramids are apart."""

import functools
import itertools

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightvit_mm.backbones import (
    EdgeViT,
    EfficientViT,
    MobileViT,
    RepViT,
    ShuffleDeiT,
    ShuffleSwin,
    ShuffleT2TViT,
    families,
)

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


# Of each family, the fewest blocks and channels that run all of its code.
MINIATURES = {
    EdgeViT: {'embed_dims': (16, 16, 24, 32), 'depths': (1, 1, 1, 1), 'head_dim': 8},
    MobileViT: {
        'stem_dims': 8,
        'embed_dims': (8, 12, 16, 24),
        'depths': (1, 1, 1, 1),
        'transformer_dims': (16, 20, 24),
        'expand_ratio': 2,
    },
    RepViT: {'embed_dims': (16, 16, 24, 32), 'depths': (2, 1, 1, 1)},
    EfficientViT: {
        'embed_dims': (16, 24, 32),
        'depths': (1, 1, 1),
        'num_heads': (2, 3, 2),
        'kernel_sizes': (7, 5, 3),
    },
    ShuffleSwin: {
        'attend_dims': (12, 24, 48, 96),
        'depths': (2, 1, 1, 1),
        'num_heads': (3, 6, 6, 12),
    },
    ShuffleDeiT: {'attend_dims': 24, 'depths': (1, 1, 1, 1), 'num_heads': 3},
    ShuffleT2TViT: {'attend_dims': 24, 'depths': (1, 1, 1, 1), 'num_heads': 2},
}
TINY = [pytest.param(family, arch, id=family.__name__) for family, arch in MINIATURES.items()]
# Options that change the modules or the way through them.
OPTIONS = [
    (EdgeViT, 'xxs', {'out_norm': True}),
    (MobileViT, 'xs', {'expand_last': True, 'output_stride': 16}),
    (RepViT, 'm0_6', {'tap': 'pre_block'}),
    (EfficientViT, 'm0', {'stem_level': True}),
    (ShuffleSwin, 'extra_tiny', {'shuffle': False}),
    (ShuffleDeiT, 'tiny', {'shuffle': False}),
    (ShuffleT2TViT, '7', {'shuffle': False, 'levels_from': 'last'}),
]


def _maker(family: type, arch: str | dict, options: dict[str, object]) -> object:
    words = [family.__name__, *([arch] if isinstance(arch, str) else [])]
    words += [f'{name}={value}' for name, value in options.items()]
    return pytest.param(functools.partial(family, arch=arch, **options), id='-'.join(words))


UNUSUAL = [_maker(family, MINIATURES[family], options) for family, _, options in OPTIONS]
# Every way through the code of a family, in its miniature.
KINDS = [_maker(family, arch, {}) for family, arch in MINIATURES.items()] + UNUSUAL
# Every variant, but m1 and m2 of RepViT, which are other names of m0_9 and m1_1.
STRUCTURES = [
    _maker(family, arch, {})
    for family in FAMILIES
    for arch in family.arch_settings
    if (family, arch) not in ((RepViT, 'm1'), (RepViT, 'm2'))
] + [_maker(*unusual) for unusual in OPTIONS]


def randomise_norms(model: torch.nn.Module) -> None:
    """Give BatchNorms statistics and affine parameters that hide no mistake in a folding."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            torch.nn.init.normal_(module.running_mean, std=0.5)
            torch.nn.init.uniform_(module.running_var, 0.3, 3.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.5)


def randomise_vectors(model: torch.nn.Module) -> None:
    """Give every vector of parameters, which start as 0 or 1, values that hide no mistake."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, float(name.endswith('weight')), 0.3)


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
