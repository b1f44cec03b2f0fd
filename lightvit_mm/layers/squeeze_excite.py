"""Squeeze-and-excitation (Hu et al., CVPR 2018, https://arxiv.org/abs/1709.01507)."""

import torch
from torch import nn

from lightvit_mm.deploy.packed import Conv2d


class SqueezeExcite(nn.Module):
    """Scale every channel by a gate computed from all channel means, (N, C, H, W) kept.

    The hidden width is a quarter of C, rounded to the nearest multiple of 8 and at least 8, as in
    the papers that use it here.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, int(channels / 4 + 4) // 8 * 8)
        self.fc1 = Conv2d(channels, hidden, 1)
        self.fc2 = Conv2d(hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Squeeze, excite, scale."""
        gate = self.fc2(self.fc1(x.mean((2, 3), keepdim=True), 'relu'))
        return x * gate.sigmoid()
