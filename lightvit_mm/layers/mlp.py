"""The feed-forward network of transformer blocks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ['Mlp']


class Mlp(nn.Module):
    """Two layers with an activation between them; the shape is kept.

    Args:
        dims: number of channels.
        hidden_dims: number of channels between the layers.
        act: makes the activation module.
        layer: makes a layer from two widths. ``nn.Linear`` works on (..., C), a 1x1 convolution
            on (N, C, H, W).
    """

    def __init__(
        self,
        dims: int,
        hidden_dims: int,
        act: Callable[[], nn.Module] = nn.GELU,
        layer: Callable[[int, int], nn.Module] = nn.Linear,
    ) -> None:
        super().__init__()
        self.fc1: Any = layer(dims, hidden_dims)
        self.act = act()
        self.fc2: Any = layer(hidden_dims, dims)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Expand, activate and reduce."""
        return self.fc2(self.act(self.fc1(x)))
