"""EfficientViT of Microsoft, with cascaded group attention; not the EfficientViT of MIT.

Liu et al., "EfficientViT: Memory Efficient Vision Transformer with Cascaded Group Attention",
CVPR 2023, https://arxiv.org/abs/2305.07027. (The other one is Cai et al., "EfficientViT:
Multi-Scale Linear Attention", https://arxiv.org/abs/2205.14756.) Numbers equal those of the
authors' detection code, microsoft/Cream at 4a13c40, EfficientViT/downstream.

Differences from that code: any input size works, also where the last map is smaller than a window
and that code fails; m0 has the query kernels of the released weights; the attention biases are
looked up in every forward pass, never cached; there is a deploy form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from lightvit_mm.backbones.pyramid import Arch, PyramidBackbone
from lightvit_mm.checkpoints.efficientvit import LAYOUTS
from lightvit_mm.errors import ConfigError
from lightvit_mm.layers import (
    ConvNorm,
    ConvNormAct,
    DropPath,
    SqueezeExcite,
    Stage,
    pad_grid_to_multiple,
)
from lightvit_mm.layers.fold import add_identity_to_depthwise
from lightvit_mm.registry import MODELS

__all__ = ['EfficientViT']

KEY_DIMS = 16
STEM_STRIDE = 8  # before the last convolution of the stem

ConvNormReLU = partial(ConvNormAct, act=partial(nn.ReLU, inplace=True))


class OverlapPatchEmbed(nn.Sequential):
    """Overlapping patch embedding (paper, section 3.2) by four convolutions of stride 2.

    (N, 3, H, W) to (N, C, ceil(H / 16), ceil(W / 16)).
    """

    def __init__(self, embed_dims: int, norm_cfg: Mapping[str, Any]) -> None:
        super().__init__(
            ConvNormReLU(3, embed_dims // 8, 3, stride=2, norm_cfg=norm_cfg),
            ConvNormReLU(embed_dims // 8, embed_dims // 4, 3, stride=2, norm_cfg=norm_cfg),
            ConvNormReLU(embed_dims // 4, embed_dims // 2, 3, stride=2, norm_cfg=norm_cfg),
            ConvNorm(embed_dims // 2, embed_dims, 3, stride=2, norm_cfg=norm_cfg),
        )


class TokenInteraction(ConvNorm):
    """Token interaction (section 3.1): ``x + depthwise 3x3 (x)``; (N, C, H, W) kept."""

    def __init__(self, channels: int, norm_cfg: Mapping[str, Any], drop_path: float = 0.0) -> None:
        super().__init__(channels, channels, 3, groups=channels, norm_cfg=norm_cfg, norm_weight=0.0)
        self.drop_path = DropPath(drop_path)
        self.folded = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add its neighbourhood to each token."""
        neighbourhood = super().forward(x)
        return neighbourhood if self.folded else x + self.drop_path(neighbourhood)

    def fold(self) -> None:
        """Fold norm and identity into the kernel."""
        super().fold()
        add_identity_to_depthwise(self.conv)
        self.folded = True


class FFN(nn.Module):
    """Residual feed-forward network of two 1x1 convolutions; (N, C, H, W) kept."""

    def __init__(self, channels: int, norm_cfg: Mapping[str, Any], drop_path: float = 0.0) -> None:
        super().__init__()
        self.pw1 = ConvNormReLU(channels, 2 * channels, norm_cfg=norm_cfg)
        self.pw2 = ConvNorm(2 * channels, channels, norm_cfg=norm_cfg, norm_weight=0.0)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Expand, activate, reduce, and add to the input."""
        return x + self.drop_path(self.pw2(self.pw1(x)))


class DistanceBias(nn.Module):
    """Learnable attention biases of an s x s window: no input, (heads, s s, s s) out.

    The bias of two tokens depends on their absolute distances along both axes.
    """

    indices: torch.Tensor

    def __init__(self, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(num_heads, window_size**2))
        place = torch.arange(window_size)
        distance = (place[:, None] - place).abs()
        indices = window_size * distance[:, None, :, None] + distance[None, :, None, :]
        self.register_buffer('indices', indices.flatten(2).flatten(0, 1), persistent=False)
        self.folded = False

    def forward(self) -> torch.Tensor:
        """Look up the bias of each head and each pair of tokens."""
        return self.scores if self.folded else self.table[:, self.indices]

    def fold(self) -> None:
        """Replace the table by the biases looked up in it."""
        self.scores = nn.Parameter(self().detach())
        del self.table, self.indices
        self.folded = True


class CascadedGroupAttention(nn.Module):
    """Cascaded group attention (section 3.1) in s x s windows; (B, C, s, s) kept.

    Each head gets its share of the channels plus the output of the head before it. Queries and keys
    have 16 channels, values as many as the share.

    Args:
        embed_dims: C.
        kernel_sizes: kernel size of the depthwise convolution of the queries, for each head.
        window_size: s.
        norm_cfg: mmcv config of the norms.
    """

    def __init__(
        self,
        embed_dims: int,
        kernel_sizes: Sequence[int],
        window_size: int,
        norm_cfg: Mapping[str, Any],
    ) -> None:
        super().__init__()
        share = embed_dims // len(kernel_sizes)
        self.qkvs = nn.ModuleList(
            ConvNorm(share, 2 * KEY_DIMS + share, norm_cfg=norm_cfg) for _ in kernel_sizes
        )
        self.dws = nn.ModuleList(
            ConvNorm(KEY_DIMS, KEY_DIMS, size, groups=KEY_DIMS, norm_cfg=norm_cfg)
            for size in kernel_sizes
        )
        self.act = nn.ReLU(inplace=True)
        self.proj = ConvNorm(embed_dims, embed_dims, norm_cfg=norm_cfg, norm_weight=0.0)
        self.attention_biases = DistanceBias(len(kernel_sizes), window_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend head by head, then mix the heads."""
        outs: list[torch.Tensor] = []
        shares = x.chunk(len(self.qkvs), dim=1)
        heads = zip(self.qkvs, self.dws, shares, self.attention_biases(), strict=True)
        for qkv, dw, share, biases in heads:
            parts = qkv(share + outs[-1] if outs else share)
            query, key, value = parts.split((KEY_DIMS, KEY_DIMS, share.shape[1]), dim=1)
            query, key, value = (part.flatten(2) for part in (dw(query), key, value))
            # scaled_dot_product_attention has no fast kernel for values wider than keys.
            scores = torch.baddbmm(biases, query.transpose(1, 2), key, alpha=KEY_DIMS**-0.5)
            tokens = scores.softmax(-1) @ value.transpose(1, 2)
            outs.append(tokens.transpose(1, 2).unflatten(2, share.shape[2:]))
        return self.proj(self.act(torch.cat(outs, dim=1)))


class LocalWindowAttention(nn.Module):
    """The attention in each window of a map, with its shortcut; (N, C, H, W) kept.

    Sides that are not multiples of the window size are zero-padded on the right and bottom. The
    published weights were trained with padding that takes part in the attention like any token.
    """

    def __init__(
        self,
        embed_dims: int,
        kernel_sizes: Sequence[int],
        window_size: int,
        norm_cfg: Mapping[str, Any],
        drop_path: float,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.attn = CascadedGroupAttention(embed_dims, kernel_sizes, window_size, norm_cfg)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Cut the map into windows, attend, reassemble it, and add it to the input."""
        height, width = x.shape[2:]
        side = (-1, self.window_size)
        # Padded in this layout: onnxruntime then moves less data than if (N, C, H, W) were padded.
        tokens = pad_grid_to_multiple(x.permute(0, 2, 3, 1), self.window_size)
        grid = tokens.unflatten(2, side).unflatten(1, side)  # (N, rows, s, columns, s, C)
        windows = grid.transpose(2, 3)
        out = self.attn(windows.flatten(0, 2).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out = out.unflatten(0, windows.shape[:3]).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return x + self.drop_path(out[:, :height, :width].permute(0, 3, 1, 2))


class EfficientViTBlock(nn.Sequential):
    """Sandwich layout (section 3.1): token interactions and FFNs around one attention."""

    def __init__(
        self,
        embed_dims: int,
        kernel_sizes: Sequence[int],
        window_size: int,
        norm_cfg: Mapping[str, Any],
        drop_path: float,
    ) -> None:
        super().__init__()
        self.dw0 = TokenInteraction(embed_dims, norm_cfg, drop_path)
        self.ffn0 = FFN(embed_dims, norm_cfg, drop_path)
        self.mixer = LocalWindowAttention(
            embed_dims, kernel_sizes, window_size, norm_cfg, drop_path
        )
        self.dw1 = TokenInteraction(embed_dims, norm_cfg, drop_path)
        self.ffn1 = FFN(embed_dims, norm_cfg, drop_path)


class PatchMerging(nn.Sequential):
    """Inverted residual block of stride 2: (N, C, H, W) to (N, C', ceil(H / 2), ceil(W / 2))."""

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        hidden = 4 * in_channels
        self.conv1 = ConvNormReLU(in_channels, hidden, norm_cfg=norm_cfg)
        self.conv2 = ConvNormReLU(hidden, hidden, 3, stride=2, groups=hidden, norm_cfg=norm_cfg)
        self.se = SqueezeExcite(hidden)
        self.conv3 = ConvNorm(hidden, out_channels, norm_cfg=norm_cfg)


class Subsample(nn.Sequential):
    """Subsample block (section 3.2): the sandwich layout with patch merging in the middle."""

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.dw0 = TokenInteraction(in_channels, norm_cfg)
        self.ffn0 = FFN(in_channels, norm_cfg)
        self.merge = PatchMerging(in_channels, out_channels, norm_cfg)
        self.dw1 = TokenInteraction(out_channels, norm_cfg)
        self.ffn1 = FFN(out_channels, norm_cfg)


@MODELS.register_module()
class EfficientViT(PyramidBackbone):
    """EfficientViT of Microsoft as a pyramid with strides 16, 32, 64.

    No level is finer than stride 16; for heads that need strides 4 or 8, the authors make them in
    `EfficientViTFPN`, and ``stem_level`` gives one of stride 8. Padding takes part in the attention
    (as in the authors' code), so the outputs for an image depend slightly on the size to which it
    is padded.

    Args:
        arch: ``'m0'`` to ``'m5'``, or a dict of ``embed_dims``, ``depths``, ``num_heads`` (each
            three numbers) and ``kernel_sizes`` (of the query convolutions, one per head; a stage
            with fewer heads uses the first ones).
        stem_level: also return, before the levels of ``out_indices``, the stem's map of stride 8,
            with half of the first stage's channels. The authors do not use it.
        window_sizes: side of the windows of each stage. The authors' detection code has 7 in all,
            their classification code at 224 pixels 7, 7 and 4; weights of either are resized.
        common: see `PyramidBackbone`, also for shapes and errors.

    Raises:
        ValueError: also if the heads of a custom arch do not divide its channels, or it has fewer
            kernel sizes than heads.
    """

    arch_settings = {
        'm0': {
            'embed_dims': (64, 128, 192),
            'depths': (1, 2, 3),
            'num_heads': (4, 4, 4),
            'kernel_sizes': (5, 5, 5, 5),
        },
        'm1': {
            'embed_dims': (128, 144, 192),
            'depths': (1, 2, 3),
            'num_heads': (2, 3, 3),
            'kernel_sizes': (7, 5, 3, 3),
        },
        'm2': {
            'embed_dims': (128, 192, 224),
            'depths': (1, 2, 3),
            'num_heads': (4, 3, 2),
            'kernel_sizes': (7, 5, 3, 3),
        },
        'm3': {
            'embed_dims': (128, 240, 320),
            'depths': (1, 2, 3),
            'num_heads': (4, 3, 4),
            'kernel_sizes': (5, 5, 5, 5),
        },
        'm4': {
            'embed_dims': (128, 256, 384),
            'depths': (1, 2, 3),
            'num_heads': (4, 4, 4),
            'kernel_sizes': (7, 5, 3, 3),
        },
        'm5': {
            'embed_dims': (192, 288, 384),
            'depths': (1, 3, 4),
            'num_heads': (3, 3, 4),
            'kernel_sizes': (7, 5, 3, 3),
        },
    }
    level_strides = (16, 32, 64)
    open_size = False  # windows are padded by an amount that depends on the size
    layouts = LAYOUTS
    stem: OverlapPatchEmbed

    def __init__(
        self,
        arch: Arch,
        stem_level: bool = False,
        window_sizes: Sequence[int] = (7, 7, 7),
        **common: Any,
    ) -> None:
        super().__init__(arch, **common)
        if len(window_sizes) != len(self.level_strides) or min(window_sizes) < 1:
            raise ConfigError(
                f'EfficientViT: window_sizes={tuple(window_sizes)}; expected three sides, in tokens'
            )
        self.stem_level = stem_level
        if stem_level:
            self.out_strides = (STEM_STRIDE, *self.out_strides)
        embed_dims, drop_path_rates = self.arch['embed_dims'], self.drop_path_rates()
        self.stem = OverlapPatchEmbed(embed_dims[0], self.norm_cfg)
        self.stages = nn.ModuleList(
            Stage(
                (
                    EfficientViTBlock(
                        embed_dims[i],
                        self._kernel_sizes(i),
                        window_sizes[i],
                        self.norm_cfg,
                        drop_path=rate,
                    )
                    for rate in drop_path_rates[i]
                ),
                downsample=Subsample(embed_dims[i - 1], embed_dims[i], self.norm_cfg)
                if i
                else None,
                with_cp=self.with_cp,
            )
            for i in range(self.num_stages)
        )
        self.finish_init()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output."""
        fine = (self.arch['embed_dims'][0] // 2,) if self.stem_level else ()
        return fine + super().out_channels

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the pyramid, see `PyramidBackbone.forward`."""
        if not self.stem_level:
            return super().forward(x)
        *finer, last = self.stem
        for conv in finer:
            x = conv(x)
        return (x, *self.forward_stages(last(x)))

    def _kernel_sizes(self, stage: int) -> tuple[int, ...]:
        """Kernel size of each head of a stage."""
        embed_dims, num_heads = self.arch['embed_dims'][stage], self.arch['num_heads'][stage]
        kernel_sizes = tuple(self.arch['kernel_sizes'][:num_heads])
        if embed_dims % num_heads or len(kernel_sizes) < num_heads:
            raise ConfigError(
                f'{self.describe()}: stage {stage} has {embed_dims} channels and {num_heads} '
                f'heads with kernel sizes {kernel_sizes}; the heads must divide the channels and '
                'have a kernel size each'
            )
        return kernel_sizes
