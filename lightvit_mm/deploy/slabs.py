"""Deployed layers on wide maps: some rows at a time, so that what stands between them stays small.

glibc takes every block of more than 32 MiB afresh from the system, which clears its pages one by
one, and gives it back at once. The hidden map of a feed-forward layer on a large image is such a
block, and clearing it costs about as much time as the layer. In slabs it is small, and the memory
of one serves the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lightvit_mm.deploy.packed import Activation, Conv2d, Linear

__all__ = ['convolve', 'is_wide', 'multiply']

# Bytes: of hidden maps that are left whole, and of a slab of the others.
WIDEST = 2**25
SLAB = 2**24
# Hidden maps are at most so many times as wide as what they are made from.
MOST_EXPANSION = 8


def is_wide(x: torch.Tensor) -> bool:
    """Whether slabs can pay behind ``x``; most maps are left whole for this glance."""
    # The compiler must not see sizes compared.
    return not torch.compiler.is_compiling() and x.nbytes > WIDEST // MOST_EXPANSION


def multiply(x: torch.Tensor, act: Activation, fc1: Linear, fc2: Linear) -> torch.Tensor:
    """``fc2(fc1(x, act))``, (..., C) to (..., C')."""
    dtype = fc1.dtype_to_pack(x)
    count = 1
    if dtype is not None:
        count = _count(dtype.itemsize * x.numel() // fc1.in_features * fc1.out_features)
    if count == 1:
        return fc2(fc1(x, act))
    slabs = x.reshape(-1, x.shape[-1]).chunk(count)
    return torch.cat([fc2(fc1(slab, act)) for slab in slabs]).view(*x.shape[:-1], -1)


def convolve(x: torch.Tensor, layers: Sequence[Conv2d], acts: Sequence[Activation]) -> torch.Tensor:
    """``x`` through convolutions, (N, C, H, W) to (N, C', H', W').

    Args:
        x: the map.
        layers: undilated, each padded by half its kernel.
        acts: the activation behind each.
    """
    dtype = layers[0].dtype_to_pack(x)
    count, heights = 1, [x.shape[2]]
    if dtype is not None:
        width, hidden = x.shape[3], 0
        for conv in layers:
            heights.append(math.ceil(heights[-1] / conv.stride[0]))
            width = math.ceil(width / conv.stride[1])
            if conv is not layers[-1]:
                hidden = max(hidden, conv.out_channels * heights[-1] * width)
        count = _count(dtype.itemsize * x.shape[0] * hidden)
    if count == 1:
        for conv, act in zip(layers, acts, strict=True):
            x = conv(x, act)
        return x
    step = math.ceil(heights[-1] / count)
    slabs = [
        _slab(x, layers, acts, heights, first, min(first + step, heights[-1]))
        for first in range(0, heights[-1], step)
    ]
    return torch.cat(slabs, dim=2)


def _slab(
    x: torch.Tensor,
    layers: Sequence[Conv2d],
    acts: Sequence[Activation],
    heights: Sequence[int],
    first: int,
    last: int,
) -> torch.Tensor:
    """The output's rows from ``first`` to in front of ``last``; ``heights`` of all maps."""
    rows = [(first, last)]
    for conv, height in zip(reversed(layers), reversed(heights[:-1]), strict=True):
        (reach,), (stride,) = {*conv.padding}, {*conv.stride}
        # The first in step with the stride; what it adds is cut off again.
        first = max(0, first * stride - reach) // stride * stride
        last = min(height, (last - 1) * stride + reach + 1)
        rows.append((first, last))
    rows.reverse()
    x = x[:, :, slice(*rows[0])]
    for conv, act, (start, _), (first, last) in zip(layers, acts, rows, rows[1:], strict=False):
        # Within the map a slab's edges are padded, too; the rows that see it are cut off.
        offset = first - start // conv.stride[0]
        x = conv(x, act)[:, :, offset : offset + last - first]
    return x


def _count(hidden_bytes: int) -> int:
    return 1 if hidden_bytes <= WIDEST else math.ceil(hidden_bytes / SLAB)
