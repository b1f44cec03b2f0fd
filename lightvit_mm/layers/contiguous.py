"""The memory layout in which a pyramid leaves its backbone."""

from typing import Any

import torch
from torch import nn

__all__ = ['contiguous_levels']


def contiguous_levels(
    module: nn.Module, images: tuple[torch.Tensor], levels: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """Give the pyramid the layout that the operators of mmcv take for granted; a forward hook.

    mmcv 2.1.0's RoIAlign reads whatever it is given as (N, C, H, W) in memory, and the necks keep
    the layout of their input: channels_last would end in features of other places, in silence.
    """
    return tuple(
        _Contiguous.apply(level)
        if level.requires_grad and not torch.compiler.is_compiling()
        else level.contiguous()
        for level in levels
    )


class _Contiguous(torch.autograd.Function):
    """``x.contiguous()``, with gradients in channels_last again.

    The gradients of heads come as their maps are. On a CPU those of BatchNorm and of convolutions
    take several times as long where the gradient is laid out in another way than the map.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.contiguous()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad.contiguous(memory_format=torch.channels_last)
