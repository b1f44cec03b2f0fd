"""Squeeze-and-excitation (Hu et al., CVPR 2018, https://arxiv.org/abs/1709.01507)."""

import torch
from torch import nn

__all__ = ['SqueezeExcite']


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all channels; (N, C, H, W) kept.

    The hidden width is a quarter of C, rounded to the nearest multiple of 8 and at least 8, as in
    the papers that use the module here.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, int(channels / 4 + 4) // 8 * 8)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Squeeze, excite and scale."""
        means = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.fc2(self.act(self.fc1(means))))
