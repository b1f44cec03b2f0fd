"""The channel shuffle module.

Xu et al., "Plug n' Play: Channel Shuffle Module for Enhancing Tiny Vision Transformers", 2023,
https://arxiv.org/abs/2310.05642. There is no official code and there are no weights: this is a
reimplementation, none of the paper's accuracies was reproduced.

From the paper's text: the token embedding makes twice the channels; in each layer one half of them
(attended) goes through attention and MLP with their residuals, the other (idle) is carried to the
end of the layer; there both are concatenated and shuffled; two learnable coefficients a layer
rescale the residual sums (its equations 3 and 4); hierarchical networks downsample the two halves
separately.

From forks of the handle Ackesnal on GitHub, which fits the first author (Swin-Transformer, branch
release, 552244b; T2T-ViT, branch shuffle, 5576f06; deit, 178e22d): the attended half is the first;
channel i of the two halves becomes channels 2i and 2i + 1; the attended widths, depths and heads,
whose counts agree with the paper's; class token, position embedding and last norm at full width.
The forks disagree on rescaling: one half on both shortcuts, fixed (Swin); one half on the output of
the whole block, fixed (T2T-ViT); none (DeiT).

Ours: the learnable coefficients are two scalars a block, on the two shortcuts, and start at 0.5;
``rescale='fixed'`` means one half on both shortcuts in every family, so it is not what the fork of
T2T-ViT computes; feature pyramids, of which the paper has none.
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
        """Split, attend, shuffle."""
        attended, idle = x.chunk(2, dim=-1)
        return torch.stack((self.block(attended), idle), dim=-1).flatten(-2)
