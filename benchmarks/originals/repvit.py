"""RepViT as THU-MIG/RepViT at 298f420 computes it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from originals.common import ConvNorm, Residual, SqueezeExcite


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
