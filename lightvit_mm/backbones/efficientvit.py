"""EfficientViT of Microsoft, with cascaded group attention; not the EfficientViT of MIT.

Liu et al., "EfficientViT: Memory Efficient Vision Transformer with Cascaded Group Attention",
CVPR 2023, https://arxiv.org/abs/2305.07027. (The other one is Cai et al., "EfficientViT:
Multi-Scale Linear Attention", https://arxiv.org/abs/2205.14756.) Numbers equal those of the
authors' detection code, microsoft/Cream at 4a13c40, EfficientViT/downstream.

What differs from that code: any input size works, where it fails when the last map is smaller
than a window; m0 has the query kernels of the released weights; the attention biases are read in
every forward, never cached; deploy form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lightvit_mm.backbones.pyramid import Arch, PyramidBackbone
from lightvit_mm.checkpoints.efficientvit import LAYOUTS
from lightvit_mm.deploy.fold import add_identity_to_depthwise
from lightvit_mm.errors import ConfigError
from lightvit_mm.layers import (
    ConvNorm,
    DropPath,
    SqueezeExcite,
    Stage,
    chain,
    pad_to_multiple,
)
from lightvit_mm.registry import MODELS

__all__ = ['EfficientViT']

KEY_DIMS = 16


class OverlapPatchEmbed(nn.Sequential):
    """Overlapping patch embedding (paper, section 3.2) by four convolutions of stride 2.

    (N, 3, H, W) to (N, C, ceil(H / 16), ceil(W / 16)).
    """

    def __init__(self, embed_dims: int, norm_cfg: Mapping[str, Any]) -> None:
        widths = (3, embed_dims // 8, embed_dims // 4, embed_dims // 2, embed_dims)
        super().__init__(
            *(ConvNorm(*pair, 3, stride=2, norm_cfg=norm_cfg) for pair in pairwise(widths))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Reduce four times, with ReLU between."""
        return chain(x, 'relu', *self)


class TokenInteraction(ConvNorm):
    """Token interaction (paper, section 3.1): ``x + depthwise 3x3 (x)``, (N, C, H, W) kept."""

    def __init__(self, channels: int, norm_cfg: Mapping[str, Any], drop_path: float = 0.0) -> None:
        super().__init__(channels, channels, 3, groups=channels, norm_cfg=norm_cfg, norm_weight=0.0)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Add each token's surroundings."""
        surroundings = super().forward(x)
        return surroundings if self.folded else self.drop_path(x, surroundings)

    def fold(self) -> None:
        """Put norm and identity into the kernel."""
        super().fold()
        add_identity_to_depthwise(self.conv)


class FFN(nn.Module):
    """Feed-forward network of two 1x1 convolutions with its shortcut, (N, C, H, W) kept."""

    def __init__(self, channels: int, norm_cfg: Mapping[str, Any], drop_path: float = 0.0) -> None:
        super().__init__()
        self.pw1 = ConvNorm(channels, 2 * channels, norm_cfg=norm_cfg)
        self.pw2 = ConvNorm(2 * channels, channels, norm_cfg=norm_cfg, norm_weight=0.0)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Expand, activate, reduce, add."""
        branch = chain(x, 'relu', self.pw1, self.pw2)
        if self.pw2.folded:
            return branch.add_(x)  # in place: 2 % of the network's time where maps outgrow a cache
        return self.drop_path(x, branch)


class DistanceBias(nn.Module):
    """Learnable biases of the scores in a window, () to (heads, s s, s s) for s x s tokens.

    The bias of two tokens depends on their distances along both axes, whatever the direction.
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
        """Look the biases up."""
        return self.scores if self.folded else self.table[:, self.indices]

    def fold(self) -> None:
        """Look them up once and for all."""
        self.scores = nn.Parameter(self().detach())
        del self.table, self.indices
        self.folded = True


class CascadedGroupAttention(nn.Module):
    """Cascaded group attention (paper, section 3.1) in s x s windows, (B, C, s, s) kept.

    Each head sees its share of the channels, to which the output of the head before is added.
    Queries and keys have 16 channels, values as many as the share.

    Args:
        embed_dims: C.
        kernel_sizes: for each head, that of the depthwise convolution of its queries.
        window_size: s.
        norm_cfg: mmcv's config of the norms.
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
        self.proj = ConvNorm(embed_dims, embed_dims, norm_cfg=norm_cfg, norm_weight=0.0)
        self.attention_biases = DistanceBias(len(kernel_sizes), window_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend head by head, mix the heads."""
        return self.proj(self.attend(x))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Attend head by head: what is to be mixed, of the same shape."""
        if self.proj.folded and x.is_cpu and torch.is_autocast_enabled('cpu'):
            # In windows the products are so small that those in bfloat16 take longer to start than
            # those in float32 take in all, and the softmax in bfloat16 takes twice as long.
            with torch.autocast('cpu', enabled=False):
                return self._attend(x.to(self.proj.conv.weight.dtype))
        return self._attend(x)

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        heads = zip(
            self.qkvs, self.dws, self.attention_biases(), x.chunk(len(self.qkvs), 1), strict=True
        )
        out, outs = None, []
        for qkv, dw, biases, share in heads:
            out = qkv(share if out is None else out + share)
            query, key, value = out.split((KEY_DIMS, KEY_DIMS, share.shape[1]), dim=1)
            # Not scaled_dot_product_attention: where values have another width than keys, it does
            # the same in more steps, with checks for rows that are masked as a whole.
            scores = torch.baddbmm(
                biases.to(query.dtype),
                dw(query).flatten(2).transpose(1, 2),
                key.flatten(2),
                alpha=KEY_DIMS**-0.5,
            )
            scores = scores.softmax(dim=-1)
            if torch.onnx.is_in_onnx_export():  # channels first, as onnxruntime has them
                tokens = value.flatten(2) @ scores.transpose(1, 2)
            else:
                tokens = torch.bmm(scores, value.flatten(2).transpose(1, 2)).transpose(1, 2)
            out = tokens.unflatten(2, share.shape[2:])
            outs.append(out)
        return F.relu(torch.cat(outs, dim=1), inplace=True)


class LocalWindowAttention(nn.Module):
    """The attention in each window of a map, with its shortcut, (N, C, H, W) kept.

    Sides that the window size does not divide are padded with zeros on the right and the bottom.
    The weights were trained with padding that takes part in the attention as any token does.
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
        """Cut into windows, attend, put together, add."""
        height, width = x.shape[2:]
        side = (-1, self.window_size)
        padded = pad_to_multiple(x, self.window_size)
        if torch.onnx.is_in_onnx_export():
            # With channels first, as onnxruntime has them, it is one transposition each way.
            grid = padded.unflatten(3, side).unflatten(2, side)  # (N, C, rows, s, columns, s)
            windows = grid.permute(0, 2, 4, 1, 3, 5)
            out = self.attn(windows.flatten(0, 2)).unflatten(0, windows.shape[:3])
            out = out.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
            return self.drop_path(x, out[:, :, :height, :width])
        grid = padded.permute(0, 2, 3, 1).unflatten(2, side).unflatten(1, side)
        # grid: (N, rows, s, columns, s, C)
        windows = grid.transpose(2, 3)
        pixels = windows.flatten(0, 2).permute(0, 3, 1, 2)
        if self.attn.proj.folded:
            # Heads are mixed pixel by pixel, so padding can go before. Not in the training form,
            # where it takes part in the statistics of the norm.
            out = self.attn.attend(pixels).permute(0, 2, 3, 1).unflatten(0, windows.shape[:3])
            out = out.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :height, :width]
            return self.attn.proj(out.permute(0, 3, 1, 2)).add_(x)
        out = self.attn(pixels).permute(0, 2, 3, 1)
        # Added window by window, so that the map needs no copy to be put together first.
        grid = self.drop_path(grid, out.unflatten(0, windows.shape[:3]).transpose(2, 3))
        return grid.flatten(3, 4).flatten(1, 2)[:, :height, :width].permute(0, 3, 1, 2)


class EfficientViTBlock(nn.Sequential):
    """Sandwich of token interactions and FFNs around one attention (paper, section 3.1)."""

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


class PatchMerging(nn.Module):
    """Inverted residual of stride 2 without shortcut: (N, C, H, W) to (N, C', H / 2, W / 2)."""

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        hidden = 4 * in_channels
        self.conv1 = ConvNorm(in_channels, hidden, norm_cfg=norm_cfg)
        self.conv2 = ConvNorm(hidden, hidden, 3, stride=2, groups=hidden, norm_cfg=norm_cfg)
        self.se = SqueezeExcite(hidden)
        self.conv3 = ConvNorm(hidden, out_channels, norm_cfg=norm_cfg)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Expand, subsample, excite, reduce."""
        x = chain(x, 'relu', self.conv1, self.conv2, last_act='relu')
        return self.conv3(self.se(x))


class Subsample(nn.Sequential):
    """Subsample block (paper, section 3.2): the sandwich with patch merging in the middle."""

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

    There is no level finer than stride 16: for heads that need strides 4 or 8 the authors make
    them in `EfficientViTFPN`. Since padding takes part in the attention (as in the authors' code),
    an image's outputs depend slightly on what it is padded to.

    Args:
        arch: ``'m0'`` to ``'m5'``, or a dict of ``embed_dims``, ``depths``, ``num_heads`` (each
            three numbers) and ``kernel_sizes`` (of the queries' convolutions, head by head; a
            stage of fewer heads takes the first ones).
        out_indices, frozen_stages, norm_eval, norm_cfg, drop_path_rate, with_cp, deploy, init_cfg:
            see `PyramidBackbone`, also for the shapes and the errors.

    Raises:
        ValueError: also when a custom arch has channels that its heads do not divide, or fewer
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
    # The classification code has 4 in the last stage at 224 pixels, the detection code 7.
    window_sizes = (7, 7, 7)

    def __init__(
        self,
        arch: Arch,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: Mapping[str, Any] | None = None,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        deploy: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            arch,
            out_indices,
            frozen_stages,
            norm_eval,
            norm_cfg,
            drop_path_rate,
            with_cp,
            deploy,
            init_cfg,
        )
        embed_dims, drop_path_rates = self.arch['embed_dims'], self.drop_path_rates()
        self.stem = OverlapPatchEmbed(embed_dims[0], self.norm_cfg)
        self.stages = nn.ModuleList(
            Stage(
                (
                    EfficientViTBlock(
                        embed_dims[i],
                        self._kernel_sizes(i),
                        self.window_sizes[i],
                        self.norm_cfg,
                        drop_path=rate,
                    )
                    for rate in drop_path_rates[i]
                ),
                downsample=Subsample(embed_dims[i - 1], embed_dims[i], self.norm_cfg)
                if i
                else None,
                with_cp=with_cp,
            )
            for i in range(self.num_stages)
        )
        self.finish_init()

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
