"""One level of a pyramid."""

from collections.abc import Iterable

import torch
from torch import nn

from lightvit_mm.layers.checkpointing import checkpoint

__all__ = ['Stage']


class Stage(nn.Module):
    """Downsampling, if any, then blocks: (N, C, H, W) to (N, C', H', W').

    Args:
        blocks: run in order.
        downsample: runs before the blocks; None where the stem has already downsampled.
        with_cp: keep no activations inside the blocks; compute them again in the backward pass.
    """

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        downsample: nn.Module | None = None,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.downsample = downsample if downsample is not None else nn.Identity()
        self.blocks = nn.ModuleList(blocks)
        self.with_cp = with_cp

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the downsampling, then the blocks."""
        return self.run_blocks(self.downsample(x))

    def run_blocks(self, x: torch.Tensor) -> torch.Tensor:
        """Run only the blocks, on the output of the downsampling."""
        for block in self.blocks:
            recompute = self.with_cp and self.training and torch.is_grad_enabled()
            x = checkpoint(block, x) if recompute else block(x)
        return x
