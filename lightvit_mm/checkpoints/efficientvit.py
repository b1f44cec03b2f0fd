"""Key layouts of EfficientViT (Microsoft): the authors' releases and timm's.

The official layout is that of microsoft/Cream, EfficientViT, at 4a13c40: the classification files
of EfficientViT_Model_Zoo and, under ``backbone.``, the detectors released there.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from math import isqrt

import torch
from torch.nn import functional as F

from lightvit_mm.checkpoints.layout import OURS, Layout, Tensors

__all__ = ['LAYOUTS']

SUBSAMPLE_PARTS = 3


def _stage_or_subsample(match: re.Match[str]) -> str:
    """The official ``blocks2`` and ``blocks3`` begin with the three parts of a subsampling."""
    stage, index = int(match[1]) - 1, int(match[2])
    if not stage:
        return f'stages.0.blocks.{index}.'
    if index >= SUBSAMPLE_PARTS:
        return f'stages.{stage}.blocks.{index - SUBSAMPLE_PARTS}.'
    return f'stages.{stage}.downsample.' + ('before.', 'merge.', 'after.')[index]


SHARED_RENAMES = (
    (r'\.before\.0\.m\.', '.dw0.'),
    (r'\.before\.1\.m\.', '.ffn0.'),
    (r'\.after\.0\.m\.', '.dw1.'),
    (r'\.after\.1\.m\.', '.ffn1.'),
    (r'\.(dw[01]|ffn[01]|mixer)\.m\.', r'.\1.'),
    (r'\.proj\.1\.', '.proj.'),
    (r'\.attention_biases$', '.attention_biases.table'),
    (r'\.c\.', '.conv.'),
    (r'\.bn\.', '.norm.'),
)


def _convert(tensors: Tensors, expected: Mapping[str, torch.Tensor]) -> Tensors:
    """Resize tables of biases, give matrices the shape of 1x1 kernels, drop index buffers."""
    return {
        name: _fitted(tensor, expected[name].shape) if name in expected else tensor
        for name, tensor in tensors.items()
        if not name.endswith('.attention_bias_idxs')
    }


def _fitted(tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    is_tensor = isinstance(tensor, torch.Tensor)
    if is_tensor and tensor.ndim == 2 and (*tensor.shape, 1, 1) == shape:
        return tensor[:, :, None, None]
    if is_tensor and tensor.ndim == len(shape) == 2 and len(tensor) == shape[0]:
        return _resize_table(tensor, isqrt(shape[1]))
    return tensor


def _resize_table(table: torch.Tensor, size: int) -> torch.Tensor:
    """Resize a table of biases (heads, s * s), one per distance in a window, to another one."""
    heads, length = table.shape
    old_size = isqrt(length)
    if old_size == size or old_size**2 != length:
        return table
    square = table.float().reshape(1, heads, old_size, old_size)
    resized = F.interpolate(square, size=(size, size), mode='bicubic')
    return resized.reshape(heads, size**2).to(table.dtype)


LAYOUTS = (
    # Our classifiers have other windows than our detectors, as the authors' do.
    replace(OURS, convert=_convert),
    Layout(
        name='official',
        renames=(
            # The authors' list also counts the activations.
            *((rf'^patch_embed\.{2 * i}\.', f'stem.{i}.') for i in range(4)),
            (r'^blocks([1-3])\.(\d+)\.', _stage_or_subsample),
            *SHARED_RENAMES,
        ),
        dropped=r'head\.|head_dist\.',
        convert=_convert,
    ),
    Layout(
        name='timm',
        renames=(
            *((rf'^patch_embed\.conv{i + 1}\.', f'stem.{i}.') for i in range(4)),
            (r'\.downsample\.res1\.', '.downsample.before.'),
            (r'\.downsample\.patchmerge\.', '.downsample.merge.'),
            (r'\.downsample\.res2\.', '.downsample.after.'),
            *SHARED_RENAMES,
        ),
        dropped=r'head\.',
        convert=_convert,
    ),
)
