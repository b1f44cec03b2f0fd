"""The backbones in torchvision's detection models."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, FeaturePyramidNetwork

from lightvit_mm.backbones import PyramidBackbone

__all__ = ['OrderedPyramid', 'PyramidWithFPN']


class OrderedPyramid(nn.Module):
    """A backbone whose levels come as an OrderedDict, with the keys ``'0'``, ``'1'``, ....

    Args:
        backbone: the backbone.
    """

    def __init__(self, backbone: PyramidBackbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        """Images (N, 3, H, W) to the levels, from fine to coarse; see `PyramidBackbone`."""
        return OrderedDict((str(i), level) for i, level in enumerate(self.backbone(x)))


class PyramidWithFPN(OrderedPyramid):
    """A backbone with torchvision's feature pyramid network, as its RetinaNet or Faster R-CNN take.

    Args:
        backbone: the backbone.
        out_channels: channels of every level.
        extra_blocks: makes further levels, e.g. torchvision's ``LastLevelP6P7(256, 256)`` for
            RetinaNet or ``LastLevelMaxPool()`` for Faster R-CNN.
    """

    def __init__(
        self,
        backbone: PyramidBackbone,
        out_channels: int = 256,
        extra_blocks: ExtraFPNBlock | None = None,
    ) -> None:
        super().__init__(backbone)
        self.out_channels = out_channels
        channels = list(backbone.out_channels)
        self.fpn = FeaturePyramidNetwork(channels, out_channels, extra_blocks)

    def forward(self, x: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        """Images (N, 3, H, W) to maps (N, out_channels, h, w), from fine to coarse."""
        return self.fpn(super().forward(x))
