"""The one head that covers the papers' classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import nn

from lightvit_mm.registry import MODELS

__all__ = ['ClassifierHead']


@MODELS.register_module()
class ClassifierHead(BaseModule):
    """Average pooling and a linear layer, with a norm and dropout before it.

    Args:
        in_channels: C, channels of the map.
        num_classes: number of outputs.
        norm: mmcv config of the norm: a LayerNorm (``'LN'``) is applied to every position before
            the pooling, as in Swin, DeiT and T2T-ViT; a BatchNorm (``'BN1d'``) to what is pooled,
            as in RepViT and EfficientViT. None means no norm.
        dropout: rate before the linear layer, as in MobileViT.
        distilled: a second norm and linear layer that learn from a teacher, as in RepViT. In
            evaluation, the outputs are averaged.
        init_cfg: mmengine's.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        norm: Mapping[str, Any] | None = None,
        dropout: float = 0.0,
        distilled: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_classes = num_classes
        self.distilled = distilled
        for suffix in ('', '_dist') if distilled else ('',):
            if norm:
                self.add_module(f'norm{suffix}', build_norm_layer(dict(norm), in_channels)[1])
            linear = nn.Linear(in_channels, num_classes)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            self.add_module(f'fc{suffix}', linear)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, levels: Sequence[torch.Tensor]
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Classify the last of ``levels``, a map (N, C, H, W).

        Returns:
            Logits (N, num_classes); while a distilled head is trained, those of both layers.
        """
        logits = self._classify(levels[-1])
        if not self.distilled:
            return logits
        taught = self._classify(levels[-1], '_dist')
        return (logits, taught) if self.training else (logits + taught) / 2

    def _classify(self, x: torch.Tensor, suffix: str = '') -> torch.Tensor:
        norm = getattr(self, f'norm{suffix}', None)
        if isinstance(norm, nn.LayerNorm):
            x = norm(x.permute(0, 2, 3, 1)).mean((1, 2))
        else:
            x = x.mean((2, 3))
            x = norm(x) if norm else x
        return getattr(self, f'fc{suffix}')(self.dropout(x))
