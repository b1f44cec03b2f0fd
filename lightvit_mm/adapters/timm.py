"""The backbones with the interface of timm's ``create_model(..., features_only=True)``."""

from __future__ import annotations

import torch
from timm.models import FeatureInfo
from torch import nn

from lightvit_mm.backbones import PyramidBackbone

__all__ = ['FeatureList']


class FeatureList(nn.Module):
    """A backbone that returns a list of maps and describes them in ``feature_info``.

    Args:
        backbone: the backbone.

    Attributes:
        feature_info: timm's FeatureInfo: ``channels()``, ``reduction()`` (strides),
            ``module_name()`` and ``get_dicts()``, one entry for each map.
    """

    def __init__(self, backbone: PyramidBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        levels = zip(backbone.out_indices, backbone.out_channels, backbone.out_strides, strict=True)
        info = [
            {'num_chs': channels, 'reduction': stride, 'module': f'backbone.stages.{index}'}
            for index, channels, stride in levels
        ]
        self.feature_info = FeatureInfo(info, tuple(range(len(info))))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Images (N, 3, H, W) to the levels, from fine to coarse; see `PyramidBackbone`."""
        return list(self.backbone(x))
