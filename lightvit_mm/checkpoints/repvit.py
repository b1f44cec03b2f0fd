"""Key layouts of RepViT: the authors' (THU-MIG/RepViT at 298f420) and timm's (1.0.31).

Each exists with the current depthwise unit and with that of the paper's first version ("legacy");
the authors' code can also save a folded network. The authors number all blocks in one list, so the
meaning of a name depends on the depths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from lightvit_mm.checkpoints.layout import Layout, Tensors

__all__ = ['make_layouts']

Renames = tuple[tuple[str, str], ...]

LEGACY_NORM_EPS = 1e-5

STEM_NAMES: Renames = ((r'^features\.0\.0\.', 'stem.conv1.'), (r'^features\.0\.2\.', 'stem.conv2.'))
OFFICIAL_PARTS: Renames = (
    (r'\.token_mixer\.0\.', '.token_mixer.'),
    (r'\.token_mixer\.1\.', '.se.'),
    (r'\.m\.0\.', '.conv1.'),
    (r'\.m\.2\.', '.conv2.'),
)
TIMM_PARTS: Renames = (
    (r'\.spatial_downsample\.', '.spatial.'),
    (r'\.channel_downsample\.', '.channel.'),
)
COMMON_PARTS: Renames = (
    (r'\.token_mixer\.conv1\.', '.token_mixer.conv1x1.'),
    # Some copies of the authors' code use the squeeze-and-excitation of an older timm.
    (r'\.conv_reduce\.', '.fc1.'),
    (r'\.conv_expand\.', '.fc2.'),
    (r'\.c\.', '.conv.'),
    (r'\.bn\.', '.norm.'),
)
# A folded convolution has the name of the module that it replaces.
FOLDED_PARTS: Renames = ((r'(?<!\.se\.fc[12])\.(weight|bias)$', r'.conv.\1'),)


def make_layouts(depths: Sequence[int]) -> tuple[Layout, ...]:
    """The published layouts of a RepViT with these depths."""
    official = STEM_NAMES + tuple(_block_names(depths)) + OFFICIAL_PARTS + COMMON_PARTS
    timm = TIMM_PARTS + COMMON_PARTS
    return (
        Layout('official', official, r'classifier\.'),
        Layout('official legacy', official, r'classifier\.', _convert_legacy),
        Layout('official fused', official + FOLDED_PARTS, r'classifier\.'),
        Layout('timm', timm, r'head\.'),
        Layout('timm legacy', timm, r'head\.', _convert_legacy),
    )


def _block_names(depths: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Our name for each entry of the authors' list, whose first entry is the stem."""
    index = 1
    for stage, depth in enumerate(depths):
        if stage:
            yield rf'^features\.{index}\.', f'stages.{stage}.downsample.pre_block.'
            reduction = rf'^features\.{index + 1}\.'
            yield rf'{reduction}token_mixer\.0\.', f'stages.{stage}.downsample.spatial.'
            yield rf'{reduction}token_mixer\.2\.', f'stages.{stage}.downsample.channel.'
            yield rf'{reduction}channel_mixer\.', f'stages.{stage}.downsample.ffn.'
            index += 2
        for block in range(depth):
            yield rf'^features\.{index}\.', f'stages.{stage}.blocks.{block}.'
            index += 1


def _convert_legacy(tensors: Tensors, expected: Mapping[str, torch.Tensor]) -> Tensors:
    """Convert depthwise units that have a norm on the 1x1 branch and none on the sum.

    The norm of the branch is folded into its convolution, and the norm of the sum is an identity.
    With frozen statistics the outputs are the same; training continues with other parameters.
    """
    converted = dict(tensors)
    for name in tensors:
        if name.endswith('.conv1x1.conv.weight'):
            _convert_legacy_unit(converted, name.removesuffix('.conv1x1.conv.weight'))
    return converted


def _convert_legacy_unit(tensors: Tensors, unit: str) -> None:
    branch, norm = f'{unit}.conv1x1', f'{unit}.norm'
    affine = ('weight', 'bias', 'running_mean', 'running_var')
    names = [f'{branch}.conv.weight', *(f'{branch}.norm.{name}' for name in affine)]
    taken = [tensors.get(name) for name in names]
    parts = [part for part in taken if isinstance(part, torch.Tensor)]
    # Incomplete or misshapen units are not changed, so that the error has their names in the file.
    if len(parts) < len(names) or {part.shape[:1] for part in parts} != {parts[1].shape}:
        return
    kernel, weight, bias, mean, variance = (part.double() for part in parts)
    scale = weight / (variance + LEGACY_NORM_EPS).sqrt()
    for name in names:
        del tensors[name]
    counter = f'{branch}.norm.num_batches_tracked'
    if counter in tensors:
        tensors[f'{norm}.num_batches_tracked'] = tensors.pop(counter)
    identity = {
        'weight': torch.full_like(scale, (1 + LEGACY_NORM_EPS) ** 0.5),
        'bias': torch.zeros_like(scale),
        'running_mean': torch.zeros_like(scale),
        'running_var': torch.ones_like(scale),
    }
    ours = {
        f'{branch}.weight': kernel * scale.view(-1, *[1] * (kernel.dim() - 1)),
        f'{branch}.bias': bias - mean * scale,
        **{f'{norm}.{name}': vector for name, vector in identity.items()},
    }
    tensors.update({name: value.to(parts[0].dtype) for name, value in ours.items()})
