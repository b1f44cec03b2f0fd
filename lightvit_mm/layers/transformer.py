"""The pre-norm transformer block, and what stands inside it whatever its attention is.

Channels are last throughout: (..., C) stands for tokens (N, L, C) as for maps (N, H, W, C).
"""

from __future__ import annotations

import torch
from torch import nn

from lightvit_mm.deploy.fold import fold_affine_into_next_linear
from lightvit_mm.deploy.packed import Linear
from lightvit_mm.errors import ConfigError
from lightvit_mm.layers.attention import attend
from lightvit_mm.layers.drop_path import DropPath
from lightvit_mm.layers.lean import feed_forward

RESCALES = ('learnable', 'fixed', 'none')
# The constant of the author's Swin fork, and where the learnable coefficients start.
INITIAL_SCALE = 0.5


class Shortcut(nn.Module):
    """Residual sum ``scale * x + branch``.

    Args:
        rescale: ``'learnable'``, ``'fixed'`` (one half) or ``'none'`` (one).
        drop_path: rate of stochastic depth.
    """

    def __init__(self, rescale: str, drop_path: float = 0.0) -> None:
        super().__init__()
        if rescale not in RESCALES:
            raise ConfigError(
                f'rescale={rescale!r}; choose one of {", ".join(map(repr, RESCALES))}'
            )
        self.rescale = rescale
        self.drop_path = DropPath(drop_path)
        if rescale == 'learnable':
            self.scale = nn.Parameter(torch.full((1,), INITIAL_SCALE))

    def forward(self, x: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Add ``branch`` to the scaled ``x``."""
        if self.rescale == 'none':
            return self.drop_path(x, branch)
        scale = self.scale if self.rescale == 'learnable' else x.new_full((1,), INITIAL_SCALE)
        if self.training and self.drop_path.drop_prob:
            return self.drop_path(x * scale, branch)
        return torch.addcmul(branch.to(x.dtype), x, scale)


class TokenMlp(nn.Module):
    """Two linear layers with GELU between, (..., C) kept."""

    def __init__(self, dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.fc1 = Linear(dims, hidden_dims)
        self.fc2 = Linear(hidden_dims, dims)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Expand, activate, reduce."""
        return feed_forward(x, self.fc1, 'gelu', self.fc2)


class GlobalAttention(nn.Module):
    """Self-attention of all tokens, (N, L, C) kept."""

    def __init__(self, dims: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dims, 3 * dims, bias=qkv_bias)
        self.proj = Linear(dims, dims)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend."""
        batch, length, dims = x.shape
        query, key, value = (
            self.qkv(x)
            .reshape(batch, length, 3, self.num_heads, dims // self.num_heads)
            .permute(2, 0, 3, 1, 4)  # (3, N, heads, L, C / heads)
        )
        x = attend(query, key, value)
        return self.proj(x.transpose(1, 2).reshape(batch, length, dims))

    def fold_norm(self, norm: nn.LayerNorm) -> None:
        """Take over scale and shift of the norm in front."""
        fold_affine_into_next_linear(norm, self.qkv)


class TransformerBlock(nn.Module):
    """Attention and MLP, each behind a LayerNorm and beside a shortcut, (..., C) kept.

    Args:
        attn: the attention, (..., C) kept. If it has a method ``fold_norm(norm)``, deploy form
            calls it.
        dims: C.
        mlp_ratio: hidden width of the MLP over C.
        norm_eps: of both norms.
        drop_path: rate of stochastic depth.
        rescale: what both shortcuts are multiplied with, see `Shortcut`.
    """

    def __init__(
        self,
        attn: nn.Module,
        dims: int,
        mlp_ratio: int,
        norm_eps: float,
        drop_path: float = 0.0,
        rescale: str = 'none',
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dims, eps=norm_eps)
        self.attn = attn
        self.shortcut1 = Shortcut(rescale, drop_path)
        self.norm2 = nn.LayerNorm(dims, eps=norm_eps)
        self.mlp = TokenMlp(dims, mlp_ratio * dims)
        self.shortcut2 = Shortcut(rescale, drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attention, MLP."""
        x = self.shortcut1(x, self.attn(self.norm1(x)))
        return self.shortcut2(x, self.mlp(self.norm2(x)))

    def fold(self) -> None:
        """Put scale and shift of the norms into the linear layers behind them."""
        fold_norm = getattr(self.attn, 'fold_norm', None)
        if callable(fold_norm):
            fold_norm(self.norm1)
        fold_affine_into_next_linear(self.norm2, self.mlp.fc1)
