"""What the originals of two or more families have in common."""

from __future__ import annotations

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


class Mlp(nn.Module):
    def __init__(self, channels, hidden, layer, act):
        super().__init__()
        self.fc1, self.fc2, self.act = layer(channels, hidden), layer(hidden, channels), act

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


def pointwise(before, after):
    return nn.Conv2d(before, after, 1)


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.m = inner

    def forward(self, x):
        return x + self.m(x)


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        hidden = max(8, (channels // 4 + 4) // 8 * 8)
        self.fc1, self.fc2 = pointwise(channels, hidden), pointwise(hidden, channels)

    def forward(self, x):
        return x * self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()
