"""MobileViT as timm 1.0.31 computes it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from originals.common import ConvNorm, Mlp


class ConvNormAct(ConvNorm):
    """Never fused: timm has no function that does it."""

    fused = None

    def __init__(self, *args, act=True):
        super().__init__(*args, name='conv')
        self.act = nn.SiLU(inplace=True) if act else nn.Identity()


class Bottle(nn.Module):
    def __init__(self, before, after, ratio, stride=1):
        super().__init__()
        hidden = ratio * before
        self.conv1_1x1 = ConvNormAct(before, hidden)
        self.conv2_kxk = ConvNormAct(hidden, hidden, 3, stride, hidden)
        self.conv3_1x1 = ConvNormAct(hidden, after, act=False)
        self.shortcut = stride == 1 and before == after

    def forward(self, x):
        out = self.conv3_1x1(self.conv2_kxk(self.conv1_1x1(x)))
        return out + x if self.shortcut else out


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, tokens):
        batch, length, channels = tokens.shape
        parts = self.qkv(tokens).reshape(batch, length, 3, 4, channels // 4).permute(2, 0, 3, 1, 4)
        tokens = F.scaled_dot_product_attention(*parts)
        return self.proj(tokens.transpose(1, 2).reshape(batch, length, channels))


class Transformer(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn = Attention(channels)
        self.mlp = Mlp(channels, 2 * channels, nn.Linear, nn.SiLU())

    def forward(self, tokens):
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class MobileViTBlock(nn.Module):
    def __init__(self, channels, embed_dims, depth):
        super().__init__()
        self.conv_kxk = ConvNormAct(channels, channels, 3)
        self.conv_1x1 = nn.Conv2d(channels, embed_dims, 1, bias=False)
        self.transformer = nn.Sequential(*(Transformer(embed_dims) for _ in range(depth)))
        self.norm = nn.LayerNorm(embed_dims)
        self.conv_proj = ConvNormAct(embed_dims, channels)
        self.conv_fusion = ConvNormAct(2 * channels, channels, 3)

    def forward(self, x):
        near = self.conv_1x1(self.conv_kxk(x))
        batch, channels, height, width = near.shape
        rows, columns = -(-height // 2), -(-width // 2)
        uneven = (height, width) != (2 * rows, 2 * columns)
        if uneven:
            near = F.interpolate(near, (2 * rows, 2 * columns), mode='bilinear')
        far = near.reshape(batch * channels * rows, 2, columns, 2).transpose(1, 2)
        far = far.reshape(batch, channels, rows * columns, 4).transpose(1, 3)
        far = self.norm(self.transformer(far.reshape(batch * 4, rows * columns, channels)))
        far = far.reshape(batch, 4, rows * columns, channels).transpose(1, 3)
        far = far.reshape(batch * channels * rows, columns, 2, 2).transpose(1, 2)
        far = far.reshape(batch, channels, 2 * rows, 2 * columns)
        if uneven:
            far = F.interpolate(far, (height, width), mode='bilinear')
        return self.conv_fusion(torch.cat((x, self.conv_proj(far)), dim=1))


class MobileViT(nn.Module):
    """The four levels before the expansion in front of timm's classifier."""

    def __init__(self, stem_dims, embed_dims, depths, transformer_dims, expand_ratio):
        super().__init__()
        self.stem = ConvNormAct(3, 16, 3, 2)
        stages = [nn.Sequential(Bottle(16, stem_dims, expand_ratio))]
        for i, (before, after) in enumerate(pairwise((stem_dims, *embed_dims))):
            blocks = [Bottle(before, after, expand_ratio, 2)]
            if i:
                blocks.append(MobileViTBlock(after, transformer_dims[i - 1], (2, 4, 3)[i - 1]))
            else:
                blocks += [Bottle(after, after, expand_ratio) for _ in range(depths[0])]
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)

    def forward(self, x):
        levels = [self.stem(x)]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        return tuple(levels[2:])
