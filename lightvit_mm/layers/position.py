"""Resizing learnt position embeddings to another number of tokens."""

import math

import torch
from torch.nn import functional as F


def resize_position(position: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Interpolate a position embedding bicubically, as the code of DeiT does.

    Args:
        position: (1, 1 + g * g, C): the class token's, then those of a square grid.
        height: rows of the new grid.
        width: columns of the new grid.

    Returns:
        (1, 1 + height * width, C).
    """
    side = math.isqrt(position.shape[1] - 1)
    if (height, width) == (side, side):
        return position
    token, grid = position[:, :1], position[:, 1:]
    grid = grid.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(height, width), mode='bicubic', align_corners=False)
    return torch.cat((token, grid.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)
