"""Padding of maps whose sides are not multiples of a stride or window."""

import torch
from torch.nn import functional as F

__all__ = ['pad_grid_to_multiple', 'pad_to_multiple']


def pad_to_multiple(x: torch.Tensor, divisor: int) -> torch.Tensor:
    """Zero-pad (N, C, H, W) on the right and bottom until ``divisor`` divides both sides."""
    height, width = x.shape[-2:]
    pad_bottom, pad_right = -height % divisor, -width % divisor
    return F.pad(x, (0, pad_right, 0, pad_bottom)) if pad_bottom or pad_right else x


def pad_grid_to_multiple(x: torch.Tensor, divisor: int) -> torch.Tensor:
    """Zero-pad (N, H, W, C) on the right and bottom until ``divisor`` divides both sides."""
    height, width = x.shape[1:3]
    pad_bottom, pad_right = -height % divisor, -width % divisor
    return F.pad(x, (0, 0, 0, pad_right, 0, pad_bottom)) if pad_bottom or pad_right else x
