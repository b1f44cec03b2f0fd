"""Parts of the networks with at most four axes besides the batch, for runtimes that have no more.

Their own forms have up to six axes, and windows in the batch. Here the first axis is the batch of
an exported file, which is 1; values and weights are the same.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lightvit_mm.backbones.edgevit import GlobalSparseAttn
from lightvit_mm.backbones.efficientvit import (
    KEY_DIMS,
    CascadedGroupAttention,
    LocalWindowAttention,
)
from lightvit_mm.backbones.mobilevit import MobileViTBlock, SelfAttention
from lightvit_mm.backbones.shuffle_swin import PatchMerging, WindowAttention, across_seam
from lightvit_mm.backbones.shuffle_vit import GlobalAttention
from lightvit_mm.layers import ChannelShuffle, pad_grid_to_multiple, pad_to_multiple

__all__ = ['low_rank']


def low_rank(module: nn.Module) -> nn.Module:
    """A copy of a module that computes the same for one image with at most four axes besides it.

    Parts that need more axes and are not known here stay as they are.
    """
    module = copy.deepcopy(module)
    for part in module.modules():
        if function := FORMS.get(type(part)):
            name = 'attend' if isinstance(part, MobileViTBlock) else 'forward'
            setattr(part, name, MethodType(function, part))
    return module


def attend(
    qkv: torch.Tensor,
    num_heads: int,
    num_sequences: int = 1,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Multi-head attention within sequences.

    Args:
        qkv: (1, S L, 3 C): queries, keys and values of the tokens of S sequences, one sequence
            after the other.
        num_heads: number of heads.
        num_sequences: S.
        bias: (1, heads S, L, L), added to the scores.

    Returns:
        (1, S L, C).
    """
    length, dims = qkv.shape[1], qkv.shape[2] // 3

    def split(x: torch.Tensor) -> torch.Tensor:
        x = x.reshape(1, length, num_heads, -1).permute(0, 2, 1, 3)
        return x.reshape(1, num_heads * num_sequences, length // num_sequences, -1)

    query, key, value = map(split, qkv.chunk(3, dim=-1))
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    out = out.reshape(1, num_heads, length, -1).permute(0, 2, 1, 3)
    return out.reshape(1, length, dims)


def to_tokens(x: torch.Tensor) -> torch.Tensor:
    """(1, C, H, W) to (1, H W, C)."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Undo `to_tokens`."""
    return tokens.transpose(1, 2).reshape(1, -1, height, width)


def sparse_attention(self: GlobalSparseAttn, x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    """Of EdgeViT: sample by pooling of single pixels, propagate by a transposed convolution."""
    full = x.shape
    x = x.permute(0, 3, 1, 2)
    if self.sr_ratio > 1:
        x = F.max_pool2d(x, 1, self.sr_ratio)
    tokens = attend(self.qkv(norm(to_tokens(x))), self.num_heads)
    if self.sr_ratio > 1:
        x = nn.ConvTranspose2d.forward(self.local_prop, to_map(tokens, *x.shape[2:]))
        tokens = self.norm(to_tokens(x[..., : full[1], : full[2]]))
    return self.proj(tokens).reshape(full)


def global_attention(self: GlobalAttention, x: torch.Tensor) -> torch.Tensor:
    """Of DeiT and T2T-ViT."""
    return self.proj(attend(self.qkv(x), self.num_heads))


def sequence_attention(self: SelfAttention, tokens: torch.Tensor) -> torch.Tensor:
    """Of MobileViT; (1, sequences, tokens, C) kept."""
    out = attend(self.qkv(tokens).flatten(1, 2), self.num_heads, tokens.shape[1])
    return self.proj(out.reshape(tokens.shape))


def attend_to_patches(self: MobileViTBlock, x: torch.Tensor) -> torch.Tensor:
    """Of MobileViT; (1, C, H, W) kept."""
    patch, (_, channels, height, width) = self.patch_size, x.shape
    rows, columns = height // patch, width // patch
    cells = x.reshape(1, channels * rows, patch, columns, patch).permute(0, 2, 4, 1, 3)
    tokens = cells.reshape(1, patch * patch, channels, rows * columns).permute(0, 1, 3, 2)
    tokens = self.norm(self.transformer(tokens)).permute(0, 1, 3, 2)
    cells = tokens.reshape(1, patch, patch, channels * rows, columns).permute(0, 3, 1, 4, 2)
    return cells.reshape(x.shape)


def local_window_attention(self: LocalWindowAttention, x: torch.Tensor) -> torch.Tensor:
    """Of EfficientViT: windows (1, C, windows, s s) go into the attention."""
    size, (_, channels, height, width) = self.window_size, x.shape
    padded = pad_to_multiple(x, size)
    rows, columns = padded.shape[2] // size, padded.shape[3] // size
    cells = padded.reshape(1, channels * rows, size, columns, size).permute(0, 1, 3, 2, 4)
    out = self.attn(cells.reshape(1, channels, rows * columns, size * size))
    cells = out.reshape(1, channels * rows, columns, size, size).permute(0, 1, 3, 2, 4)
    return x + cells.reshape(padded.shape)[..., :height, :width]


def cascaded_group_attention(self: CascadedGroupAttention, x: torch.Tensor) -> torch.Tensor:
    """Of EfficientViT; (1, C, windows, s s) kept."""
    outs: list[torch.Tensor] = []
    shares = x.chunk(len(self.qkvs), dim=1)
    for qkv, dw, share, biases in zip(
        self.qkvs, self.dws, shares, self.attention_biases(), strict=True
    ):
        parts = qkv(share + outs[-1] if outs else share)
        query, key, value = parts.split((KEY_DIMS, KEY_DIMS, share.shape[1]), dim=1)
        query, key, value = (
            part.permute(0, 2, 1, 3) for part in (convolve_windows(dw, query), key, value)
        )
        scores = query.transpose(2, 3) @ key * KEY_DIMS**-0.5 + biases
        outs.append((value @ scores.softmax(-1).transpose(2, 3)).permute(0, 2, 1, 3))
    return self.proj(self.act(torch.cat(outs, dim=1)))


def convolve_windows(conv: Any, x: torch.Tensor) -> torch.Tensor:
    """Apply a `ConvNorm` to each window as if it were alone; (1, C, windows, s s) kept.

    The windows are stacked to one map with rows of zeros between them.
    """
    _, channels, windows, area = x.shape
    size, gutter = math.isqrt(area), conv.conv.padding[0]
    x = F.pad(x.reshape(1, channels * windows, size, size), (0, 0, 0, gutter))
    x = conv(x.reshape(1, channels, windows * (size + gutter), size))
    x = x.reshape(1, channels * windows, size + gutter, size)[:, :, :size]
    return x.reshape(1, channels, windows, area)


def window_attention(self: WindowAttention, x: torch.Tensor) -> torch.Tensor:
    """Of Swin; (1, H, W, C) kept."""
    _, height, width, dims = x.shape
    size, shift = self.window_size, self.shift if min(height, width) > self.window_size else 0
    x = pad_grid_to_multiple(x, size)
    shape = x.shape
    rows, columns = shape[1] // size, shape[2] // size
    x = rolled(x, shift)
    cells = x.reshape(1, rows, size, columns, size * dims).permute(0, 1, 3, 2, 4)
    bias = self.position_bias()[:, None].expand(-1, rows * columns, -1, -1)
    if shift:
        across = across_seam(shape[1], shape[2], size, shift, x.device)
        bias = bias.masked_fill(across, float('-inf'))
    qkv = self.qkv(cells.reshape(1, -1, dims))
    out = attend(qkv, self.num_heads, rows * columns, bias.flatten(0, 1)[None])
    cells = out.reshape(1, rows, columns, size, size * dims).permute(0, 1, 3, 2, 4)
    return self.proj(rolled(cells.reshape(shape), -shift)[:, :height, :width])


def rolled(x: torch.Tensor, shift: int) -> torch.Tensor:
    """Move a map (1, H, W, C) up and to the left, around the border."""
    for axis in (1, 2) if shift else ():
        first, second = x.split((shift % x.shape[axis], -shift % x.shape[axis]), axis)
        x = torch.cat((second, first), axis)
    return x


def patch_merging(self: PatchMerging, x: torch.Tensor) -> torch.Tensor:
    """Of Swin: (1, H, W, C) to (1, ceil(H / 2), ceil(W / 2), 2C)."""
    x = pad_grid_to_multiple(x, 2)
    _, height, width, dims = x.shape
    # From each two rows, the upper and lower token of each column follow each other.
    x = x.reshape(1, height // 2, 2, width, dims).transpose(2, 3)
    return self.reduction(self.norm(x.reshape(1, height // 2, width // 2, 4 * dims)))


def channel_shuffle(self: ChannelShuffle, x: torch.Tensor) -> torch.Tensor:
    """Interleave both halves; (1, ..., 2C) kept."""
    attended, idle = x.chunk(2, dim=-1)
    halves = torch.cat((self.block(attended), idle), dim=-1)
    return halves.reshape(1, -1, 2, attended.shape[-1]).transpose(2, 3).reshape(x.shape)


FORMS: dict[type[nn.Module], Callable[..., torch.Tensor]] = {
    GlobalSparseAttn: sparse_attention,
    GlobalAttention: global_attention,
    SelfAttention: sequence_attention,
    MobileViTBlock: attend_to_patches,
    LocalWindowAttention: local_window_attention,
    CascadedGroupAttention: cascaded_group_attention,
    WindowAttention: window_attention,
    PatchMerging: patch_merging,
    ChannelShuffle: channel_shuffle,
}
