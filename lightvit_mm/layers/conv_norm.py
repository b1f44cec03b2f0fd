"""A convolution followed by a BatchNorm, which deploy form makes one convolution."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from torch import nn

from lightvit_mm.deploy import slabs
from lightvit_mm.deploy.fold import fuse_conv_and_norm
from lightvit_mm.deploy.packed import Activation, Conv2d, activate
from lightvit_mm.layers.lean import hooked, norm_act_conv


class ConvNorm(nn.Module):
    """Convolution without bias, then a norm: (N, C, H, W) to (N, C', ceil(H / s), ceil(W / s)).

    Args:
        in_channels: C.
        out_channels: C'.
        kernel_size: odd; zeros are padded so that stride 1 keeps the size.
        stride: s.
        groups: as torch's.
        norm_cfg: mmcv's config of the norm.
        norm_weight: what the norm's weight starts with; 0 makes a residual branch start silent.
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
        self.conv = Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, 1, groups, bias=False
        )
        self.norm = build_norm_layer(norm_cfg, out_channels)[1]
        nn.init.constant_(self.norm.weight, norm_weight)
        self.folded = False

    def forward(self, x: torch.Tensor, act: Activation = None) -> torch.Tensor:
        """Convolve, normalise and activate."""
        if self.folded:
            return self.conv(x, act)
        return activate(self.norm(self.conv(x)), act)

    def fold(self) -> None:
        """Put the norm into the convolution, which gets a bias."""
        self.conv = fuse_conv_and_norm(self.conv, self.norm)
        self.norm = nn.Identity()
        self.folded = True


def chain(
    x: torch.Tensor, act: Activation, *layers: ConvNorm, last_act: Activation = None
) -> torch.Tensor:
    """``x`` through layers, each but the last with ``act``, and with less memory than one by one.

    Args:
        x: (N, C, H, W).
        act: between each two layers.
        layers: two or more.
        last_act: behind the last one.
    """
    *inner, last = layers
    if last.folded and slabs.is_wide(x):
        convs = [layer.conv for layer in layers]
        if not hooked(*layers, *convs):
            return slabs.convolve(x, convs, [act] * len(inner) + [last_act])
    if last.folded or hooked(*layers):
        for layer in inner:
            x = layer(x, act)
        return last(x, last_act)
    x = layers[0].conv(x)
    for before, after in pairwise(layers):
        x = norm_act_conv(x, before.norm, act, after.conv)
    return activate(last.norm(x), last_act)
