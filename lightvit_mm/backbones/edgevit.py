"""EdgeViT.

Pan et al., "EdgeViTs: Competing Light-weight CNNs on Mobile Devices with Vision Transformers",
ECCV 2022, https://arxiv.org/abs/2205.03436. Numbers equal those of the authors' classification
code, saic-fi/edgevit at df3d070, for the sizes that it accepts; it has no detection code.

Differences from that code: any input size works; tokens are sampled before they are normalised,
which is cheaper and gives the same values; local propagation is an outer product; there is a deploy
form.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from torch import nn
from torch.nn import functional as F

from lightvit_mm.backbones.pyramid import Arch, PyramidBackbone
from lightvit_mm.checkpoints.edgevit import LAYOUTS
from lightvit_mm.layers import DropPath, Mlp, Stage, init_linear, pad_to_multiple
from lightvit_mm.layers.fold import (
    add_identity_to_depthwise,
    fold_norm_into_next_pointwise,
    norm_to_depthwise,
)
from lightvit_mm.registry import MODELS

__all__ = ['EdgeViT']

# The authors' code uses 1e-6 in the blocks and torch's default in the other two places.
BLOCK_NORM_EPS = 1e-6
PATCH_AND_PROPAGATION_NORM_EPS = 1e-5

Pointwise = partial(nn.Conv2d, kernel_size=1)


class PatchEmbed(nn.Module):
    """Non-overlapping patches to channels: (N, C, H, W) to (N, C', ceil(H / p), ceil(W / p)).

    Sides that are not multiples of the patch size are zero-padded on the right and bottom.
    """

    def __init__(self, in_channels: int, embed_dims: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dims, eps=PATCH_AND_PROPAGATION_NORM_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed and normalise each patch."""
        x = self.proj(pad_to_multiple(x, self.patch_size))
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvPosEmbed(nn.Conv2d):
    """Conditional position embedding: ``x + depthwise 3x3 (x)``, shape kept."""

    def __init__(self, embed_dims: int) -> None:
        super().__init__(embed_dims, embed_dims, 3, padding=1, groups=embed_dims)
        self.folded = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the position embedding."""
        position = super().forward(x)
        return position if self.folded else x + position

    def fold(self) -> None:
        """Fold the identity into the kernel."""
        add_identity_to_depthwise(self)
        self.folded = True


class LocalAgg(nn.Module):
    """Local aggregation (figure 2c): convolutions gather the neighbourhood of each token.

    (N, C, H, W) is kept.
    """

    def __init__(
        self, embed_dims: int, mlp_ratio: int, norm_cfg: Mapping[str, Any], drop_path: float
    ) -> None:
        super().__init__()
        self.pos_embed = ConvPosEmbed(embed_dims)
        self.norm1 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.conv1 = Pointwise(embed_dims, embed_dims)
        self.attn = nn.Conv2d(embed_dims, embed_dims, 5, padding=2, groups=embed_dims)
        self.conv2 = Pointwise(embed_dims, embed_dims)
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.mlp = Mlp(embed_dims, mlp_ratio * embed_dims, layer=Pointwise)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add positions, aggregate, then apply the MLP."""
        x = self.pos_embed(x)
        x = x + self.drop_path(self.conv2(self.attn(self.conv1(self.norm1(x)))))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def fold(self) -> None:
        """Fold each BatchNorm into the 1x1 convolution that follows it."""
        fold_norm_into_next_pointwise(self.norm1, self.conv1)
        fold_norm_into_next_pointwise(self.norm2, self.mlp.fc1)
        self.norm1 = self.norm2 = nn.Identity()


class LocalProp(nn.ConvTranspose2d):
    """Local propagation (figure 2e): each delegate token spreads over its r x r cell.

    (N, h, w, C) to (N, r h, r w, C). The convolution is depthwise and its stride equals its kernel
    size, so it is the outer product of tokens and kernel.
    """

    def __init__(self, embed_dims: int, sr_ratio: int) -> None:
        super().__init__(embed_dims, embed_dims, sr_ratio, stride=sr_ratio, groups=embed_dims)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Spread each token over its cell."""
        batch, height, width, channels = tokens.shape
        ratio = self.kernel_size[0]
        kernel = self.weight.permute(2, 3, 1, 0)  # (C, 1, r, r) -> (r, r, 1, C)
        cells = tokens[:, :, None, :, None] * kernel[:, None, :, 0]
        assert self.bias is not None
        return (cells + self.bias).reshape(batch, ratio * height, ratio * width, channels)


class GlobalSparseAttn(nn.Module):
    """Global sparse attention and local propagation (figures 2d and 2e), (N, H, W, C) kept.

    The top-left token of each r x r cell attends to those of all other cells. With r = 1 all tokens
    attend to each other, and there is no propagation. ``norm`` is the block's own LayerNorm; it
    works per token, so it is applied after the sampling.
    """

    def __init__(self, embed_dims: int, num_heads: int, sr_ratio: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.sr_ratio = sr_ratio
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)
        if sr_ratio > 1:
            self.local_prop = LocalProp(embed_dims, sr_ratio)
            self.norm = nn.LayerNorm(embed_dims, eps=PATCH_AND_PROPAGATION_NORM_EPS)

    def forward(self, x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        """Sample tokens, attend, and propagate the result."""
        batch, full_height, full_width, channels = x.shape
        tokens = norm(x[:, :: self.sr_ratio, :: self.sr_ratio])
        height, width = tokens.shape[1:3]
        query, key, value = (
            self.qkv(tokens)
            .reshape(batch, height * width, 3, self.num_heads, channels // self.num_heads)
            .permute(2, 0, 3, 1, 4)  # (3, N, heads, h w, C / heads)
        )
        tokens = F.scaled_dot_product_attention(query, key, value)
        tokens = tokens.transpose(1, 2).reshape(batch, height, width, channels)
        if self.sr_ratio > 1:
            tokens = self.norm(self.local_prop(tokens)[:, :full_height, :full_width])
        return self.proj(tokens)


class SelfAttn(nn.Module):
    """Transformer block with the sparse attention; (N, C, H, W) kept."""

    def __init__(
        self, embed_dims: int, num_heads: int, mlp_ratio: int, sr_ratio: int, drop_path: float
    ) -> None:
        super().__init__()
        self.pos_embed = ConvPosEmbed(embed_dims)
        self.norm1 = nn.LayerNorm(embed_dims, eps=BLOCK_NORM_EPS)
        self.attn = GlobalSparseAttn(embed_dims, num_heads, sr_ratio)
        self.norm2 = nn.LayerNorm(embed_dims, eps=BLOCK_NORM_EPS)
        self.mlp = Mlp(embed_dims, mlp_ratio * embed_dims)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add positions, attend, then apply the MLP."""
        x = self.pos_embed(x).permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attn(x, self.norm1))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x.permute(0, 3, 1, 2)


class LGLBlock(nn.Sequential):
    """Local-global-local bottleneck (figure 2b), without local aggregation in the last stage."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        mlp_ratio: int,
        sr_ratio: int,
        norm_cfg: Mapping[str, Any],
        drop_path: float,
    ) -> None:
        super().__init__()
        if sr_ratio > 1:
            self.local_agg = LocalAgg(embed_dims, mlp_ratio, norm_cfg, drop_path)
        self.self_attn = SelfAttn(embed_dims, num_heads, mlp_ratio, sr_ratio, drop_path)


@MODELS.register_module()
class EdgeViT(PyramidBackbone):
    """EdgeViT as a pyramid with strides 4, 8, 16, 32.

    The authors released no weights; alibaba/EasyCV did, and files made with the authors'
    classification code load too. EasyCV's code has an eps of 1e-8 in the blocks' LayerNorm, not
    1e-6, which changes the outputs as little as rounding does (docs/weights.md).

    Args:
        arch: ``'xxs'``, ``'xs'``, ``'s'``, or a dict of ``embed_dims``, ``depths`` (each four
            numbers) and ``head_dim``.
        out_norm: apply to the last level the BatchNorm that the classification code has before its
            pooling. That code has no norm on the other levels.
        common: see `PyramidBackbone`, also for shapes and errors.
    """

    arch_settings = {
        'xxs': {'embed_dims': (36, 72, 144, 288), 'depths': (1, 1, 3, 2), 'head_dim': 36},
        'xs': {'embed_dims': (48, 96, 240, 384), 'depths': (1, 1, 3, 1), 'head_dim': 48},
        's': {'embed_dims': (48, 96, 240, 384), 'depths': (1, 2, 5, 3), 'head_dim': 48},
    }
    level_strides = (4, 8, 16, 32)
    layouts = LAYOUTS
    sr_ratios = (4, 2, 2, 1)
    mlp_ratio = 4

    def __init__(
        self,
        arch: Arch,
        *,
        out_norm: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(arch, **common)
        embed_dims, head_dim = self.arch['embed_dims'], self.arch['head_dim']
        drop_path_rates = self.drop_path_rates()
        self.stem = PatchEmbed(3, embed_dims[0], patch_size=4)
        self.stages = nn.ModuleList(
            Stage(
                (
                    LGLBlock(
                        embed_dims[i],
                        num_heads=embed_dims[i] // head_dim,
                        mlp_ratio=self.mlp_ratio,
                        sr_ratio=self.sr_ratios[i],
                        norm_cfg=self.norm_cfg,
                        drop_path=rate,
                    )
                    for rate in drop_path_rates[i]
                ),
                downsample=PatchEmbed(embed_dims[i - 1], embed_dims[i], 2) if i else None,
                with_cp=self.with_cp,
            )
            for i in range(self.num_stages)
        )
        last_level = len(self.level_strides) - 1
        if out_norm and last_level in self.out_indices:
            self.out_norm = build_norm_layer(self.norm_cfg, embed_dims[-1])[1]
        self.apply(init_linear)
        self.finish_init()

    def optional_parts(self) -> tuple[str, ...]:
        """The final BatchNorm, if it was not requested."""
        return () if hasattr(self, 'out_norm') else ('out_norm.',)

    def forward_output(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """Apply the final norm, if there is one, to the last level."""
        is_last = index == len(self.level_strides) - 1
        return self.out_norm(x) if is_last and hasattr(self, 'out_norm') else x

    def fold(self) -> None:
        """Turn the final BatchNorm, which no convolution follows, into a scale and shift."""
        if hasattr(self, 'out_norm'):
            self.out_norm = norm_to_depthwise(self.out_norm)
