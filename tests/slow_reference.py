"""The slow reference: the originals' forward passes, written out module for module.

What these do is what the authors' code does, in its order, memory layout and number of operations:
contiguous (N, C, H, W) maps, tokens made by flatten and transpose, attention by two matrix products
and a softmax. Names of parameters are those of the releases, so that one state dict serves both.
They exist to be compared with, in value (test_slow_reference.py) and in speed (compare_speed.py).

Written from the architecture tables and key layouts; sources as in the family files of the package:
saic-fi/edgevit at df3d070, THU-MIG/RepViT at 298f420, microsoft/Cream at 4a13c40 (EfficientViT),
timm 1.0.31 (MobileViT, whose attention is scaled_dot_product_attention already).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


class ConvNorm(nn.Sequential):
    """Convolution without bias and BatchNorm; ``fused`` makes one convolution of both."""

    def __init__(self, before, after, kernel_size=1, stride=1, groups=1, name='c'):
        super().__init__()
        padding = kernel_size // 2
        conv = nn.Conv2d(before, after, kernel_size, stride, padding, 1, groups, bias=False)
        self.add_module(name, conv)
        self.add_module('bn', nn.BatchNorm2d(after))

    def fused(self) -> nn.Conv2d:
        conv, norm = self
        return torch.nn.utils.fuse_conv_bn_eval(conv, norm)


def fuse(module: nn.Module) -> nn.Module:
    """Fuse what the authors' own function fuses, in place."""
    for name, child in module.named_children():
        fused = getattr(child, 'fused', None)
        setattr(module, name, fused() if fused else fuse(child))
    return module


def attend(query, key, value, scale, bias=0.0):
    """(B, heads, tokens, C) each, by way of the matrix of all scores."""
    scores = (query @ key.transpose(-2, -1)) * scale + bias
    return scores.softmax(dim=-1) @ value


def self_attention(tokens, qkv, proj, num_heads, between=None):
    """Multi-head attention of (B, tokens, C); ``between`` works on what the heads give."""
    batch, length, channels = tokens.shape
    parts = qkv(tokens).reshape(batch, length, 3, num_heads, channels // num_heads)
    query, key, value = parts.permute(2, 0, 3, 1, 4)
    tokens = attend(query, key, value, (channels // num_heads) ** -0.5)
    tokens = tokens.transpose(1, 2).reshape(batch, length, channels)
    return proj(between(tokens) if between else tokens)


def to_tokens(x):
    return x.flatten(2).transpose(1, 2)


def to_map(tokens, height, width):
    return tokens.transpose(1, 2).reshape(len(tokens), -1, height, width)


# EdgeViT


class Mlp(nn.Module):
    def __init__(self, channels, hidden, layer, act):
        super().__init__()
        self.fc1, self.fc2, self.act = layer(channels, hidden), layer(hidden, channels), act

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


def pointwise(before, after):
    return nn.Conv2d(before, after, 1)


class EdgePatchEmbed(nn.Module):
    def __init__(self, before, after, patch):
        super().__init__()
        self.proj = nn.Conv2d(before, after, patch, patch)
        self.norm = nn.LayerNorm(after)

    def forward(self, x):
        x = self.proj(x)
        height, width = x.shape[2:]
        tokens = self.norm(to_tokens(x))
        return tokens.reshape(len(x), height, width, -1).permute(0, 3, 1, 2).contiguous()


class LocalAgg(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.pos_embed = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.conv1, self.conv2 = pointwise(channels, channels), pointwise(channels, channels)
        self.attn = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.mlp = Mlp(channels, 4 * channels, pointwise, nn.GELU())

    def forward(self, x):
        x = x + self.pos_embed(x)
        x = x + self.conv2(self.attn(self.conv1(self.norm1(x))))
        return x + self.mlp(self.norm2(x))


class SparseAttention(nn.Module):
    def __init__(self, channels, num_heads, ratio):
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.ratio = ratio
        if ratio > 1:
            self.sampler = nn.AvgPool2d(1, ratio)
            self.LocalProp = nn.ConvTranspose2d(channels, channels, ratio, ratio, groups=channels)
            self.norm = nn.LayerNorm(channels)

    def forward(self, tokens, height, width):
        if self.ratio == 1:
            return self_attention(tokens, self.qkv, self.proj, self.num_heads)
        sampled = self.sampler(to_map(tokens, height, width))
        rows, columns = sampled.shape[2:]

        def propagate(tokens):
            return self.norm(to_tokens(self.LocalProp(to_map(tokens, rows, columns))))

        return self_attention(
            to_tokens(sampled), self.qkv, self.proj, self.num_heads, between=propagate
        )


class SelfAttn(nn.Module):
    def __init__(self, channels, num_heads, ratio):
        super().__init__()
        self.pos_embed = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1, self.norm2 = (nn.LayerNorm(channels, eps=1e-6) for _ in range(2))
        self.attn = SparseAttention(channels, num_heads, ratio)
        self.mlp = Mlp(channels, 4 * channels, nn.Linear, nn.GELU())

    def forward(self, x):
        x = x + self.pos_embed(x)
        height, width = x.shape[2:]
        tokens = to_tokens(x)
        tokens = tokens + self.attn(self.norm1(tokens), height, width)
        tokens = tokens + self.mlp(self.norm2(tokens))
        return to_map(tokens, height, width)


class EdgeBlock(nn.Module):
    def __init__(self, channels, num_heads, ratio):
        super().__init__()
        self.LocalAgg = LocalAgg(channels) if ratio > 1 else nn.Identity()
        self.SelfAttn = SelfAttn(channels, num_heads, ratio)

    def forward(self, x):
        return self.SelfAttn(self.LocalAgg(x))


class EdgeViT(nn.Module):
    """The four levels; sides must be multiples of 32, and nothing is there to fuse."""

    def __init__(self, embed_dims, depths, head_dim):
        super().__init__()
        for i, (channels, depth, ratio) in enumerate(
            zip(embed_dims, depths, (4, 2, 2, 1), strict=True), 1
        ):
            before = embed_dims[i - 2] if i > 1 else 3
            self.add_module(f'patch_embed{i}', EdgePatchEmbed(before, channels, 2 if i > 1 else 4))
            blocks = (EdgeBlock(channels, channels // head_dim, ratio) for _ in range(depth))
            self.add_module(f'blocks{i}', nn.Sequential(*blocks))

    def forward(self, x):
        levels = []
        for i in range(1, 5):
            x = getattr(self, f'blocks{i}')(getattr(self, f'patch_embed{i}')(x))
            levels.append(x)
        return tuple(levels)


# RepViT


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.m = inner

    def forward(self, x):
        return x + self.m(x)


class RepVGGDW(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = ConvNorm(channels, channels, 3, groups=channels)
        self.conv1 = nn.Conv2d(channels, channels, 1, groups=channels)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.bn((self.conv(x) + self.conv1(x)) + x)

    @torch.no_grad()
    def fused(self) -> nn.Conv2d:
        conv = self.conv.fused()
        conv.weight += F.pad(self.conv1.weight + 1, (1, 1, 1, 1))
        conv.bias += self.conv1.bias
        return torch.nn.utils.fuse_conv_bn_eval(conv, self.bn)


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        hidden = max(8, (channels // 4 + 4) // 8 * 8)
        self.fc1, self.fc2 = pointwise(channels, hidden), pointwise(hidden, channels)

    def forward(self, x):
        return x * self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class RepViTBlock(nn.Module):
    def __init__(self, before, after, stride, squeeze):
        super().__init__()
        if stride == 1:
            excite = SqueezeExcite(before) if squeeze else nn.Identity()
            self.token_mixer = nn.Sequential(RepVGGDW(before), excite)
        else:
            self.token_mixer = nn.Sequential(
                ConvNorm(before, before, 3, stride, before), nn.Identity(), ConvNorm(before, after)
            )
        self.channel_mixer = Residual(
            nn.Sequential(ConvNorm(after, 2 * after), nn.GELU(), ConvNorm(2 * after, after))
        )

    def forward(self, x):
        return self.channel_mixer(self.token_mixer(x))


class RepViT(nn.Module):
    """The four levels as the authors' detection code takes them."""

    def __init__(self, embed_dims, depths):
        super().__init__()
        width = embed_dims[0]
        stem = nn.Sequential(
            ConvNorm(3, width // 2, 3, 2), nn.GELU(), ConvNorm(width // 2, width, 3, 2)
        )
        features, self.taps = [stem], []
        for stage, (channels, depth) in enumerate(zip(embed_dims, depths, strict=True)):
            if stage:
                before = embed_dims[stage - 1]
                features += [
                    RepViTBlock(before, before, 1, squeeze=False),
                    RepViTBlock(before, channels, 2, squeeze=False),
                ]
            features += [RepViTBlock(channels, channels, 1, i % 2 == 0) for i in range(depth)]
            self.taps.append(len(features) - 1)
        self.features = nn.ModuleList(features)

    def forward(self, x):
        levels = []
        for i, feature in enumerate(self.features):
            x = feature(x)
            if i in self.taps:
                levels.append(x)
        return tuple(levels)


# EfficientViT


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


# MobileViT


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


FAMILIES = {cls.__name__: cls for cls in (EdgeViT, RepViT, EfficientViT, MobileViT)}
