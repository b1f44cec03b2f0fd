"""A convolution followed by a BatchNorm, which the deploy form turns into one convolution."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from torch import nn

from lightvit_mm.layers.fold import fuse_conv_and_norm

__all__ = ['ConvNorm', 'ConvNormAct']


class ConvNorm(nn.Module):
    """Convolution without bias, then a norm: (N, C, H, W) to (N, C', ceil(H / s), ceil(W / s)).

    Args:
        in_channels: C.
        out_channels: C'.
        kernel_size: an odd number; zero padding of half of it keeps the size at stride 1.
        stride: s.
        groups: number of blocked connections from input to output channels.
        norm_cfg: mmcv config of the norm.
        norm_weight: initial weight of the norm; 0 makes a residual branch start as zero.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        norm_cfg: Mapping[str, Any],
        norm_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, 1, groups, bias=False
        )
        self.norm = build_norm_layer(norm_cfg, out_channels)[1]
        nn.init.constant_(self.norm.weight, norm_weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve and normalise."""
        return self.norm(self.conv(x))

    def fold(self) -> None:
        """Fold the norm into the convolution, which gains a bias."""
        self.conv = fuse_conv_and_norm(self.conv, self.norm)
        self.norm = nn.Identity()


class ConvNormAct(ConvNorm):
    """`ConvNorm`, then an activation; same shapes and arguments.

    Args:
        act: makes the activation module.
    """

    def __init__(self, *args: Any, act: Callable[[], nn.Module], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.act = act()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve, normalise and activate."""
        return self.act(super().forward(x))
