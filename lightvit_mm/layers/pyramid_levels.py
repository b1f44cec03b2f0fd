"""Pyramid levels out of maps of one stride, as detectors make them from plain ViTs.

Four maps of stride 16 become strides 4, 8, 16 and 32, as in the detection code of BEiT (Bao et al.,
ICLR 2022, https://arxiv.org/abs/2106.08254) and mmseg's ``Feature2Pyramid``.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from torch import nn
from torch.nn import functional as F

from lightvit_mm.deploy.fold import fold_norm_into_transposed_conv


class Upsample2(nn.ConvTranspose2d):
    """(N, C, H, W) to (N, C, 2H, 2W) by a transposed convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 2, stride=2)


class Upsample4(nn.Module):
    """(N, C, H, W) to (N, C, 4H, 4W) by two transposed convolutions, norm and GELU between."""

    def __init__(self, channels: int, norm_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.up1 = Upsample2(channels)
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.up2 = Upsample2(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Enlarge twice."""
        return self.up2(F.gelu(self.norm(self.up1(x))))

    def fold(self) -> None:
        """Put the norm into the convolution in front of it."""
        fold_norm_into_transposed_conv(self.up1, self.norm)
        self.norm = nn.Identity()


def pyramid_level(stride: int, channels: int, norm_cfg: Mapping[str, Any]) -> nn.Module:
    """What makes the level of ``stride`` 4, 8, 16 or 32 out of a map of stride 16."""
    if stride == 4:
        return Upsample4(channels, norm_cfg)
    if stride == 8:
        return Upsample2(channels)
    return nn.Identity() if stride == 16 else nn.MaxPool2d(2, ceil_mode=True)
