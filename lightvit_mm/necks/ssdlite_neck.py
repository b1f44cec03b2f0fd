"""The pyramid of MobileViT's SSDLite.

apple/ml-cvnets at 7771756, ``cvnets/models/detection/ssd.py``: separable convolutions of stride 2
after the backbone's last map, then a global average. A 1x1 convolution projects each level of the
backbone to the width of its head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmengine.model import BaseModule
from torch import nn

from lightvit_mm.errors import ConfigError
from lightvit_mm.registry import MODELS

__all__ = ['SSDLiteNeck']

XAVIER = {'type': 'Xavier', 'layer': 'Conv2d', 'distribution': 'uniform'}


@MODELS.register_module()
class SSDLiteNeck(BaseModule):
    """Projected levels of a backbone and coarser ones, for SSDLite's heads.

    Args:
        in_channels: channels of the inputs, fine to coarse.
        out_channels: channels of the outputs: one per input, then one per coarser level, the last
            of which is 1 x 1.
        norm_cfg: config of the norms.
        act_cfg: config of the activations.
        init_cfg: mmengine's.

    Raises:
        ValueError: there is no output beyond the inputs and the 1 x 1 level.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        norm_cfg: Mapping[str, Any] = {'type': 'BN'},
        act_cfg: Mapping[str, Any] = {'type': 'Swish'},
        init_cfg: dict | list[dict] | None = XAVIER,
    ) -> None:
        super().__init__(init_cfg)
        num_inputs = len(in_channels)
        if len(out_channels) < num_inputs + 2:
            raise ConfigError(
                f'SSDLiteNeck: out_channels={list(out_channels)} needs at least two numbers more '
                f'than in_channels={list(in_channels)}'
            )
        common = {'norm_cfg': norm_cfg, 'act_cfg': act_cfg}
        self.projections = nn.ModuleList(
            ConvModule(channels, width, 1, **common) if channels != width else nn.Identity()
            for channels, width in zip(in_channels, out_channels, strict=False)
        )
        widths = (in_channels[-1], *out_channels[num_inputs:])
        self.extra_layers = nn.ModuleList(
            DepthwiseSeparableConvModule(
                widths[i], widths[i + 1], 3, stride=2, padding=1, dw_act_cfg=None, **common
            )
            for i in range(len(widths) - 2)
        )
        self.pooled = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), ConvModule(widths[-2], widths[-1], 1, act_cfg=act_cfg)
        )

    def forward(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Compute the levels.

        Args:
            inputs: maps (N, in_channels[i], H_i, W_i), fine to coarse.

        Returns:
            ``len(out_channels)`` maps: those for the inputs in their sizes, then each half as
            large as the one before, rounded up, and the last one 1 x 1.
        """
        outs = [project(x) for project, x in zip(self.projections, inputs, strict=True)]
        x = inputs[-1]
        for layer in (*self.extra_layers, self.pooled):
            x = layer(x)
            outs.append(x)
        return tuple(outs)
