"""Swin Transformer with channel shuffle, and the plain one that it is compared with.

Channel shuffle: https://arxiv.org/abs/2310.05642; `lightvit_mm.layers.channel_shuffle` lists what
comes from the paper, what from its first author's forks, and what is our choice. Swin: Liu et al.,
ICCV 2021, https://arxiv.org/abs/2103.14030; microsoft/Swin-Transformer. With ``rescale='fixed'``
and ``out_norm=False`` the numbers equal those of the fork Ackesnal/Swin-Transformer, branch release
at 552244b; with ``shuffle=False`` those of the plain network.

Windows at the border work as in Swin's detection code: after the norm, maps are zero-padded to
whole windows, and the zeros take part in the attention. A map that fits into one window in one
direction is not shifted, as in the classification code; the detection code shifts it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lightvit_mm.backbones.pyramid import Arch, PyramidBackbone
from lightvit_mm.checkpoints.shuffle_swin import LAYOUTS, SHUFFLED_LAYOUTS
from lightvit_mm.layers import (
    ChannelShuffle,
    Stage,
    TransformerBlock,
    init_linear,
    pad_grid_to_multiple,
    pad_to_multiple,
)
from lightvit_mm.layers.fold import fold_affine_into_next_linear
from lightvit_mm.registry import MODELS

__all__ = ['ShuffleSwin']

NORM_EPS = 1e-5


class PatchEmbed(nn.Module):
    """Images (N, 3, H, W) to normalised patches (N, ceil(H / p), ceil(W / p), C)."""

    def __init__(self, embed_dims: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, embed_dims, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dims, eps=NORM_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed and normalise each patch."""
        x = self.proj(pad_to_multiple(x, self.patch_size))
        return self.norm(x.permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Merge 2 x 2 tokens: (N, H, W, C) to (N, ceil(H / 2), ceil(W / 2), 2C)."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dims, eps=NORM_EPS)
        self.reduction = nn.Linear(4 * dims, 2 * dims, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Concatenate each 2 x 2 tokens, normalise and reduce."""
        x = pad_grid_to_multiple(x, 2)
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (N, h, 2, w, 2, C)
        return self.reduction(self.norm(x.permute(0, 1, 3, 4, 2, 5).flatten(3)))

    def fold(self) -> None:
        """Fold scale and shift of the norm into the reduction."""
        fold_affine_into_next_linear(self.norm, self.reduction)


class SplitPatchMerging(nn.Module):
    """Separate patch merging of the attended and of the idle half.

    (N, H, W, 2C) to (N, ceil(H / 2), ceil(W / 2), 4C), at half the cost of merging both jointly.
    """

    def __init__(self, attend_dims: int) -> None:
        super().__init__()
        self.attended = PatchMerging(attend_dims)
        self.idle = PatchMerging(attend_dims)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Merge both halves."""
        attended, idle = x.chunk(2, dim=-1)
        return torch.cat((self.attended(attended), self.idle(idle)), dim=-1)


class WindowAttention(nn.Module):
    """Self-attention within windows of M x M tokens; (N, H, W, C) kept.

    Args:
        dims: C.
        num_heads: number of attention heads.
        window_size: M.
        shift: by how many tokens the windows are moved down and to the right. The map wraps around,
            but no token attends across the seam.
    """

    relative_position_index: torch.Tensor
    relative_position_bias: torch.Tensor

    def __init__(self, dims: int, num_heads: int, window_size: int, shift: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.shift = shift
        self.qkv = nn.Linear(dims, 3 * dims)
        self.proj = nn.Linear(dims, dims)
        num_offsets = 2 * window_size - 1
        self.relative_position_bias_table = nn.Parameter(torch.empty(num_offsets**2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        tokens = torch.arange(window_size**2)
        rows, columns = tokens // window_size, tokens % window_size
        row_offsets, column_offsets = (
            side[:, None] - side + window_size - 1 for side in (rows, columns)
        )
        self.register_buffer(
            'relative_position_index', num_offsets * row_offsets + column_offsets, persistent=False
        )
        self.folded = False

    def position_bias(self) -> torch.Tensor:
        """Bias of each head and pair of tokens: (heads, M * M, M * M)."""
        if self.folded:
            return self.relative_position_bias
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad and shift the map, attend within each window, then undo shift and padding."""
        batch, height, width, dims = x.shape
        size, shift = self.window_size, self.shift if min(x.shape[1:3]) > self.window_size else 0
        x = pad_grid_to_multiple(x, size)
        padded_height, padded_width = x.shape[1:3]
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        query, key, value = (
            self.qkv(_windows(x, size))
            .unflatten(-1, (3, self.num_heads, dims // self.num_heads))
            .permute(2, 0, 3, 1, 4)  # (3, windows, heads, M * M, C / heads)
        )
        bias = self.position_bias().to(query.dtype)[None]
        if shift:
            across = across_seam(padded_height, padded_width, size, shift, x.device)
            bias = bias.masked_fill(across[:, None], float('-inf')).repeat(batch, 1, 1, 1)
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = x.transpose(1, 2).reshape(
            batch, padded_height // size, padded_width // size, size, size, dims
        )
        x = x.transpose(2, 3).reshape(batch, padded_height, padded_width, dims)
        if shift:
            x = x.roll((shift, shift), (1, 2))
        return self.proj(x[:, :height, :width])

    def fold(self) -> None:
        """Replace the table by the biases looked up in it.

        The norm before the attention is not folded into ``qkv``: the padding between them is zero
        after the shift of the norm, so it would have to be something else before it.
        """
        bias = self.position_bias().detach().contiguous()
        del self.relative_position_bias_table, self.relative_position_index
        # A buffer, because torch's fast attention on CPUs rejects a bias that requires a gradient.
        self.register_buffer('relative_position_bias', bias)
        self.folded = True


def _windows(x: torch.Tensor, size: int) -> torch.Tensor:
    """(N, H, W, C) to (N * windows, size * size, C)."""
    x = x.unflatten(2, (-1, size)).unflatten(1, (-1, size))
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def across_seam(
    height: int, width: int, size: int, shift: int, device: torch.device
) -> torch.Tensor:
    """Pairs of tokens of each window on different sides of the seam: (windows, M * M, M * M)."""
    rows = (torch.arange(height, device=device) >= height - shift).unflatten(0, (-1, size))
    columns = (torch.arange(width, device=device) >= width - shift).unflatten(0, (-1, size))
    quarter = 2 * rows[:, None, :, None] + 1 * columns[:, None]  # (rows, columns, M, M)
    quarter = quarter.flatten(0, 1).flatten(1)
    return quarter[:, :, None] != quarter[:, None]


@MODELS.register_module()
class ShuffleSwin(PyramidBackbone):
    """Channel-shuffle Swin Transformer as a pyramid with strides 4, 8, 16, 32.

    The levels are twice as wide as ``attend_dims``: 96, 192, 384 and 768 channels in
    ``extra_tiny``, 192, 384, 768 and 1536 in ``tiny``. ``'learnable'`` rescaling adds two
    parameters per block, 20 in ``extra_tiny`` and 22 in ``tiny``. Only the plain networks,
    ``shuffle=False``, have published weights.

    Args:
        arch: ``'extra_tiny'``, ``'tiny'``, or a dict of ``attend_dims`` (channels that are attended
            to), ``depths`` and ``num_heads``, each four numbers. With ``shuffle=False`` the named
            ones have one block more in the third stage, as in the paper's comparison.
        shuffle: False builds the plain network of width ``attend_dims``, without rescaling.
        rescale: factor of the shortcuts of each block: ``'learnable'`` scalars that start at 0.5,
            ``'fixed'`` 0.5, or ``'none'``.
        out_norm: normalise each output with its own LayerNorm, as in Swin's detection code.
            Classification files have none of them; they then keep their initial values.
        common: see `PyramidBackbone`, also for shapes and errors. There is no BatchNorm, so
            ``norm_eval`` and ``norm_cfg`` have no effect.
    """

    arch_settings = {
        'extra_tiny': {
            'attend_dims': (48, 96, 192, 384),
            'depths': (2, 2, 4, 2),
            'num_heads': (3, 6, 12, 24),
        },
        'tiny': {
            'attend_dims': (96, 192, 384, 768),
            'depths': (2, 2, 5, 2),
            'num_heads': (3, 6, 12, 24),
        },
    }
    plain_depths = {'extra_tiny': (2, 2, 5, 2), 'tiny': (2, 2, 6, 2)}
    open_size = False  # windows are padded and shifted in a way that depends on the size
    level_strides = (4, 8, 16, 32)
    patch_size = 4
    window_size = 7
    mlp_ratio = 4

    def __init__(
        self,
        arch: Arch,
        *,
        shuffle: bool = True,
        rescale: str = 'learnable',
        out_norm: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(arch, **common)
        self.shuffle = shuffle
        self.layouts = SHUFFLED_LAYOUTS if shuffle else LAYOUTS
        if not shuffle and self.arch_name in self.plain_depths:
            self.arch = {**self.arch, 'depths': self.plain_depths[self.arch_name]}
        self.stem = PatchEmbed(self.level_channels()[0], self.patch_size)
        merging = SplitPatchMerging if shuffle else PatchMerging
        attend_dims = self.arch['attend_dims']
        self.stages = nn.ModuleList(
            Stage(
                self._blocks(i, rescale if shuffle else 'none'),
                downsample=merging(attend_dims[i - 1]) if i else None,
                with_cp=self.with_cp,
            )
            for i in range(self.num_stages)
        )
        self.out_norms = nn.ModuleDict(
            {
                str(i): nn.LayerNorm(self.level_channels()[i], eps=NORM_EPS)
                for i in (self.out_indices if out_norm else ())
            }
        )
        self.apply(init_linear)
        self.finish_init()

    def level_channels(self) -> tuple[int, ...]:
        """Channels of every level: the attended half, and the idle one if there is one."""
        halves = 2 if self.shuffle else 1
        return tuple(halves * dims for dims in self.arch['attend_dims'])

    def optional_parts(self) -> tuple[str, ...]:
        """The output norms that this backbone does not have."""
        levels = range(len(self.level_strides))
        return tuple(f'out_norms.{i}.' for i in levels if str(i) not in self.out_norms)

    def unpublished_parts(self) -> tuple[str, ...]:
        """The output norms, which no classification file has."""
        return tuple(f'out_norms.{i}.' for i in self.out_norms)

    def forward_output(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """Normalise the tokens of a level, and turn (N, H, W, C) into (N, C, H, W)."""
        if str(index) in self.out_norms:
            x = self.out_norms[str(index)](x)
        return x.permute(0, 3, 1, 2)

    def _blocks(self, stage: int, rescale: str) -> list[nn.Module]:
        dims, num_heads = self.arch['attend_dims'][stage], self.arch['num_heads'][stage]
        blocks: list[nn.Module] = [
            TransformerBlock(
                WindowAttention(
                    dims,
                    num_heads,
                    self.window_size,
                    shift=self.window_size // 2 if number % 2 else 0,
                ),
                dims,
                self.mlp_ratio,
                NORM_EPS,
                drop_path,
                rescale,
            )
            for number, drop_path in enumerate(self.drop_path_rates()[stage])
        ]
        return [ChannelShuffle(block) for block in blocks] if self.shuffle else blocks
