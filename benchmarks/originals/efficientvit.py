"""EfficientViT as microsoft/Cream at 4a13c40 computes it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from originals.common import ConvNorm, Residual, SqueezeExcite


class FFN(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.pw1, self.pw2 = ConvNorm(channels, 2 * channels), ConvNorm(2 * channels, channels)

    def forward(self, x):
        return self.pw2(F.relu(self.pw1(x)))


class CascadedGroupAttention(nn.Module):
    def __init__(self, channels, kernel_sizes):
        super().__init__()
        share = channels // len(kernel_sizes)
        self.split = (16, 16, share)
        self.qkvs = nn.ModuleList(ConvNorm(share, 32 + share) for _ in kernel_sizes)
        self.dws = nn.ModuleList(ConvNorm(16, 16, size, groups=16) for size in kernel_sizes)
        self.proj = nn.Sequential(nn.ReLU(), ConvNorm(channels, channels))
        self.attention_biases = nn.Parameter(torch.zeros(len(kernel_sizes), 49))
        y, x = torch.arange(49) // 7, torch.arange(49) % 7
        distances = (y[:, None] - y).abs() * 7 + (x[:, None] - x).abs()
        self.register_buffer('distances', distances, persistent=False)
        self.register_buffer('looked_up', None, persistent=False)

    def train(self, mode=True):
        super().train(mode)
        # The authors' code keeps the biases of eval mode.
        self.looked_up = None if mode else self.attention_biases[:, self.distances].detach()
        return self

    def forward(self, x):
        training = self.looked_up is None
        biases = self.attention_biases[:, self.distances] if training else self.looked_up
        shares = x.chunk(len(self.qkvs), dim=1)
        out, outs = shares[0], []
        for i, (qkv, dw) in enumerate(zip(self.qkvs, self.dws, strict=True)):
            out = qkv(out + shares[i] if i else out)
            query, key, value = out.split(self.split, dim=1)
            query, key, value = dw(query).flatten(2), key.flatten(2), value.flatten(2)
            scores = (query.transpose(-2, -1) @ key) * 16**-0.5 + biases[i]
            out = (value @ scores.softmax(dim=-1).transpose(-2, -1)).reshape(shares[0].shape)
            outs.append(out)
        return self.proj(torch.cat(outs, dim=1))


class WindowAttention(nn.Module):
    def __init__(self, channels, kernel_sizes):
        super().__init__()
        self.attn = CascadedGroupAttention(channels, kernel_sizes)

    def forward(self, x):
        batch, channels, height, width = x.shape
        if height <= 7 and width <= 7:
            return self.attn(x)
        x = x.permute(0, 2, 3, 1)
        x = F.pad(x, (0, 0, 0, -width % 7, 0, -height % 7))
        rows, columns = x.shape[1] // 7, x.shape[2] // 7
        windows = x.reshape(batch, rows, 7, columns, 7, channels).transpose(2, 3)
        windows = windows.reshape(-1, 7, 7, channels).permute(0, 3, 1, 2)
        windows = self.attn(windows).permute(0, 2, 3, 1)
        windows = windows.reshape(batch, rows, columns, 7, 7, channels).transpose(2, 3)
        x = windows.reshape(batch, rows * 7, columns * 7, channels)
        return x[:, :height, :width].contiguous().permute(0, 3, 1, 2)


class EfficientViTBlock(nn.Module):
    def __init__(self, channels, kernel_sizes):
        super().__init__()
        self.dw0, self.dw1 = (
            Residual(ConvNorm(channels, channels, 3, 1, channels)) for _ in range(2)
        )
        self.ffn0, self.ffn1 = (Residual(FFN(channels)) for _ in range(2))
        self.mixer = Residual(WindowAttention(channels, kernel_sizes))

    def forward(self, x):
        return self.ffn1(self.dw1(self.mixer(self.ffn0(self.dw0(x)))))


class PatchMerging(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        hidden = 4 * before
        self.conv1 = ConvNorm(before, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, 2, hidden)
        self.se = SqueezeExcite(hidden)
        self.conv3 = ConvNorm(hidden, after)

    def forward(self, x):
        return self.conv3(self.se(F.relu(self.conv2(F.relu(self.conv1(x))))))


class EfficientViT(nn.Module):
    """The three levels of the authors' detection code."""

    def __init__(self, embed_dims, depths, num_heads, kernel_sizes):
        super().__init__()
        width = embed_dims[0]
        widths = (3, width // 8, width // 4, width // 2, width)
        stem = [layer for pair in pairwise(widths) for layer in (ConvNorm(*pair, 3, 2), nn.ReLU())]
        self.patch_embed = nn.Sequential(*stem[:-1])
        for i, (channels, depth, heads) in enumerate(
            zip(embed_dims, depths, num_heads, strict=True)
        ):
            blocks = [EfficientViTBlock(channels, kernel_sizes[:heads]) for _ in range(depth)]
            if i:
                before = embed_dims[i - 1]
                ends = (self._pair(before), PatchMerging(before, channels), self._pair(channels))
                blocks = [*ends, *blocks]
            self.add_module(f'blocks{i + 1}', nn.Sequential(*blocks))

    @staticmethod
    def _pair(channels):
        return nn.Sequential(
            Residual(ConvNorm(channels, channels, 3, 1, channels)), Residual(FFN(channels))
        )

    def forward(self, x):
        levels = [self.patch_embed(x)]
        for i in range(1, 4):
            levels.append(getattr(self, f'blocks{i}')(levels[-1]))
        return tuple(levels[1:])
