"""Stochastic depth (Huang et al., ECCV 2016, https://arxiv.org/abs/1603.09382)."""

import torch
from torch import nn


class DropPath(nn.Module):
    """Residual sum ``x + branch``, in training without the branch for some images of a batch.

    The branch of the others is divided by their share. It draws as mmcv's ``DropPath`` does, but
    masks and adds in one pass over the memory instead of three, and keeps no map for the backward
    pass.

    Args:
        drop_prob: share of the images, in [0, 1).
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Add ``branch`` (N, ...) to ``x`` of the same shape."""
        if not self.drop_prob or not self.training:
            return x + branch
        kept = 1 - self.drop_prob
        shape = (len(branch),) + (1,) * (branch.dim() - 1)
        draws = torch.rand(shape, dtype=branch.dtype, device=branch.device)
        return torch.addcmul(x, branch, (kept + draws).floor_().div_(kept))

    def extra_repr(self) -> str:
        """Tell the share."""
        return f'drop_prob={self.drop_prob:.3f}'
