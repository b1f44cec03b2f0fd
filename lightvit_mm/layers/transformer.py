"""The pre-norm transformer block of Swin, DeiT and T2T-ViT.

Channels come last throughout: (..., C) is tokens (N, L, C) or maps (N, H, W, C).
"""

from __future__ import annotations

import torch
from mmcv.cnn.bricks import DropPath
from torch import nn

from lightvit_mm.errors import ConfigError
from lightvit_mm.layers.fold import fold_affine_into_next_linear
from lightvit_mm.layers.mlp import Mlp

__all__ = ['TransformerBlock']

RESCALES = ('learnable', 'fixed', 'none')
# The constant of the author's Swin fork, and the initial value of the learnable coefficients.
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
        if self.rescale == 'learnable':
            x = x * self.scale
        elif self.rescale == 'fixed':
            x = x * INITIAL_SCALE
        return x + self.drop_path(branch)


class TransformerBlock(nn.Module):
    """Attention and MLP, each after a LayerNorm and with a shortcut around both; (..., C) kept.

    Args:
        attn: the attention, which keeps (..., C). If it has a method ``fold_norm(norm)``, the
            deploy form calls it.
        dims: C.
        mlp_ratio: hidden width of the MLP over C.
        norm_eps: eps of both norms.
        drop_path: rate of stochastic depth.
        rescale: factor of both shortcuts, see `Shortcut`.
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
        self.mlp = Mlp(dims, mlp_ratio * dims)
        self.shortcut2 = Shortcut(rescale, drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend, then apply the MLP."""
        x = self.shortcut1(x, self.attn(self.norm1(x)))
        return self.shortcut2(x, self.mlp(self.norm2(x)))

    def fold(self) -> None:
        """Fold scale and shift of the norms into the linear layers that follow them."""
        fold_norm = getattr(self.attn, 'fold_norm', None)
        if callable(fold_norm):
            fold_norm(self.norm1)
        fold_affine_into_next_linear(self.norm2, self.mlp.fc1)
