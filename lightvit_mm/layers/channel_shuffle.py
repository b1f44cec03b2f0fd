"""The channel shuffle module.

Xu et al., "Plug n' Play: Channel Shuffle Module for Enhancing Tiny Vision Transformers", 2023,
https://arxiv.org/abs/2310.05642. There is no official code and there are no weights: this is a
reimplementation, none of the paper's accuracies was reproduced.

What the paper says: the token embedding doubles the channels. In each layer, one half of them
(attended) goes through attention and MLP with their residuals; the other half (idle) is carried to
the end of the layer, where both are concatenated and shuffled. Two learnable coefficients per layer
rescale the residual sums (equations 3 and 4). Hierarchical networks downsample the two halves
separately.

What the forks of the GitHub user Ackesnal add, a handle that fits the first author
(Swin-Transformer, branch release, 552244b; T2T-ViT, branch shuffle, 5576f06; deit, 178e22d): the
attended half comes first; channel i of the two halves becomes channels 2i and 2i + 1; the attended
widths, depths and heads, whose parameter counts agree with the paper's; class token, position
embedding and last norm have the full width. The forks disagree on rescaling: Swin multiplies both
shortcuts by a fixed one half, T2T-ViT the output of the whole block, and DeiT does not rescale.

What we chose: the learnable coefficients are two scalars per block, one for each shortcut, and
start at 0.5. ``rescale='fixed'`` means one half on both shortcuts in every family, which differs
from the T2T-ViT fork. The paper has no feature pyramids; these are ours.
"""

import torch
from torch import nn


class ChannelShuffle(nn.Module):
    """Run ``block`` on the first half of the channels, then interleave both, (..., 2C) kept.

    Args:
        block: any block that keeps (..., C), channels last.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Split the channels, run the block on the first half, and interleave both halves."""
        attended, idle = x.chunk(2, dim=-1)
        return torch.stack((self.block(attended), idle), dim=-1).flatten(-2)
