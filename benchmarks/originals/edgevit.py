"""EdgeViT as saic-fi/edgevit at df3d070 computes it."""

from __future__ import annotations

from torch import nn

from originals.common import Mlp, pointwise, self_attention, to_map, to_tokens


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
