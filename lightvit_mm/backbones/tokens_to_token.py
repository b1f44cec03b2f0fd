"""The tokens-to-token module of T2T-ViT.

Yuan et al., ICCV 2021, https://arxiv.org/abs/2101.11986; yitu-opensource/T2T-ViT at 3862e28. The
kernel attention is that of Choromanski et al., "Rethinking Attention with Performers", ICLR 2021,
https://arxiv.org/abs/2009.14794.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn import functional as F

from lightvit_mm.layers import Mlp, pad_to_multiple, resize_position
from lightvit_mm.layers.fold import fold_affine_into_next_linear

__all__ = ['TokensToToken', 'sinusoid_table']

NORM_EPS = 1e-5
DIVISION_EPS = 1e-8
DROPOUT_RATE = 0.1
TOKEN_DIMS = 64
STRIDE = 16


class TokenPerformer(nn.Module):
    """Transformer layer with attention of linear complexity: (N, L, C) to (N, L, C').

    Softmax attention is approximated with positive random features, which are fixed. The shortcut
    starts from the value, since it has the new width. As in the authors' code, dropout follows
    attention and MLP in training.
    """

    random_features: torch.Tensor

    def __init__(self, in_dims: int, dims: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(in_dims, eps=NORM_EPS)
        self.kqv = nn.Linear(in_dims, 3 * dims)
        self.proj = nn.Linear(dims, dims)
        self.norm2 = nn.LayerNorm(dims, eps=NORM_EPS)
        self.mlp = Mlp(dims, dims)
        self.dropout = nn.Dropout(DROPOUT_RATE)
        num_features = dims // 2
        features = nn.init.orthogonal_(torch.empty(num_features, dims)) * math.sqrt(num_features)
        self.register_buffer('random_features', features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend, then apply the MLP."""
        key, query, value = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        x = value + self.dropout(self.proj(self._kernel_attention(key, query, value)))
        return x + self.dropout(self.mlp(self.norm2(x)))

    def _kernel_attention(
        self, key: torch.Tensor, query: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        # Sums of exponentials over all tokens need the range of single precision.
        with _no_autocast(value.device.type):
            key, query = self._kernel(key.float()), self._kernel(query.float())
            context = key.transpose(1, 2) @ value.float()
            # The authors divide both kernels by the root of the number of features, which cancels
            # except in this number.
            eps = DIVISION_EPS * self.random_features.shape[0]
            norm = query @ key.sum(1)[:, :, None] + eps
            return (query @ context / norm).to(value.dtype)

    def _kernel(self, x: torch.Tensor) -> torch.Tensor:
        half_norm = x.square().sum(-1, keepdim=True) / 2
        return torch.exp(x @ self.random_features.float().t() - half_norm)

    def fold(self) -> None:
        """Fold scale and shift of the norms into the linear layers that follow them."""
        fold_affine_into_next_linear(self.norm1, self.kqv)
        fold_affine_into_next_linear(self.norm2, self.mlp.fc1)


def _no_autocast(device_type: str) -> AbstractContextManager:
    if not torch.amp.is_autocast_available(device_type):  # as on the meta device
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


class TokensToToken(nn.Module):
    """Images (N, 3, H, W) to tokens (N, 1 + ceil(H / 16) * ceil(W / 16), C), the class token first.

    Three soft splits (overlapping patches) with a `TokenPerformer` after each of the first two. The
    position embedding is a fixed table for 14 x 14 tokens, interpolated for other grids. Sides that
    are not multiples of 16 are zero-padded on the right and bottom.
    """

    pos_embed: torch.Tensor

    def __init__(self, embed_dims: int, num_positions: int) -> None:
        super().__init__()
        self.attention1 = TokenPerformer(3 * 7 * 7, TOKEN_DIMS)
        self.attention2 = TokenPerformer(TOKEN_DIMS * 3 * 3, TOKEN_DIMS)
        self.project = nn.Linear(TOKEN_DIMS * 3 * 3, embed_dims)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dims))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        table = sinusoid_table(1 + num_positions, embed_dims)[None]
        self.register_buffer('pos_embed', table, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Alternate soft splits and attention, then embed the tokens."""
        x = pad_to_multiple(x, STRIDE)
        height, width = (side // STRIDE for side in x.shape[-2:])
        tokens = F.unfold(x, 7, padding=2, stride=4).transpose(1, 2)
        tokens = self._soft_split(self.attention1(tokens), 4 * height, 4 * width)
        tokens = self._soft_split(self.attention2(tokens), 2 * height, 2 * width)
        tokens = self.project(tokens)
        tokens = torch.cat((self.cls_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        return tokens + resize_position(self.pos_embed, height, width)

    @staticmethod
    def _soft_split(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
        x = tokens.transpose(1, 2).unflatten(2, (height, width))
        return F.unfold(x, 3, padding=1, stride=2).transpose(1, 2)


def sinusoid_table(length: int, dims: int) -> torch.Tensor:
    """The Transformer's fixed position embedding: (length, dims), alternating sine and cosine."""
    frequencies = 10000.0 ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1).float()
