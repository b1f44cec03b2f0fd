"""A level of a pyramid."""

from collections.abc import Iterable

import torch
from torch import nn

from lightvit_mm.layers.checkpointing import checkpoint


class Stage(nn.Module):
    """One level of a pyramid, (N, C, H, W) to (N, C', H', W'): downsampling if any, then blocks.

    Args:
        blocks: the blocks, run in order.
        downsample: what comes before them; None where the stem has done it.
        with_cp: keep no activations inside the blocks and compute them again for the gradient.
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
        """Run the downsampling and the blocks."""
        return self.run_blocks(self.downsample(x))

    def run_blocks(self, x: torch.Tensor) -> torch.Tensor:
        """Run the blocks alone, on what comes out of the downsampling."""
        for block in self.blocks:
            recompute = self.with_cp and self.training and torch.is_grad_enabled()
            x = checkpoint(block, x) if recompute else block(x)
        return x
