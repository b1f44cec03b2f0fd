"""MobileViT (version 1).

Mehta and Rastegari, "MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision
Transformer", ICLR 2022, https://arxiv.org/abs/2110.02178. Numbers equal those of the authors'
code, apple/ml-cvnets at 7771756, at any size, and those of timm and mmpretrain.

Differences from that code: the 1x1 expansion before the classifier is an option; maps that need
another size are resized outside the two 1x1 convolutions around the transformers, which gives the
same values and moves fewer channels; attention keeps no score matrix; there are stochastic depth
and a deploy form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lightvit_mm.backbones.pyramid import Arch, PyramidBackbone
from lightvit_mm.checkpoints.mobilevit import LAYOUTS
from lightvit_mm.errors import ConfigError
from lightvit_mm.layers import ConvNorm, ConvNormAct, DropPath, Mlp, Stage
from lightvit_mm.registry import MODELS

__all__ = ['MobileViT']


ConvNormSiLU = partial(ConvNormAct, act=nn.SiLU)


class MV2Block(nn.Module):
    """Inverted residual of MobileNetV2: (N, C, H, W) to (N, C', ceil(H / s), ceil(W / s)).

    It has a residual connection if input and output have the same shape.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expand_ratio: int,
        norm_cfg: Mapping[str, Any],
        stride: int = 1,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = expand_ratio * in_channels
        self.expand = ConvNormSiLU(in_channels, hidden, norm_cfg=norm_cfg)
        self.depthwise = ConvNormSiLU(hidden, hidden, 3, stride, hidden, norm_cfg=norm_cfg)
        self.reduce = ConvNorm(hidden, out_channels, norm_cfg=norm_cfg)
        self.residual = stride == 1 and in_channels == out_channels
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Expand, filter and reduce."""
        out = self.reduce(self.depthwise(self.expand(x)))
        return x + self.drop_path(out) if self.residual else out


class SelfAttention(nn.Module):
    """Multi-head attention within each sequence; (N, sequences, tokens, C) kept."""

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = embed_dims // num_heads
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Let the tokens of each sequence attend to each other."""
        batch, sequences, length, _ = tokens.shape
        qkv = self.qkv(tokens).reshape(batch * sequences, length, 3, self.num_heads, self.head_dim)
        # CUDA's float32 kernels that make no score matrix need head widths that are multiples of 4;
        # zeros change no product. Only one stage of xs, whose heads are 30 wide, is padded.
        qkv = F.pad(qkv, (0, padding)) if (padding := -self.head_dim % 4) else qkv
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (N sequences, heads, tokens, dim)
        out = F.scaled_dot_product_attention(query, key, value, scale=self.head_dim**-0.5)
        out = out[..., : self.head_dim].transpose(1, 2)
        return self.proj(out.reshape(tokens.shape))


class TransformerLayer(nn.Module):
    """Pre-norm transformer layer; (N, sequences, tokens, C) kept."""

    def __init__(
        self, embed_dims: int, num_heads: int, mlp_ratio: int, drop_rate: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dims)
        self.attn = SelfAttention(embed_dims, num_heads)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.mlp = Mlp(embed_dims, mlp_ratio * embed_dims, act=nn.SiLU)
        self.dropout = nn.Dropout(drop_rate)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Attend, then apply the MLP."""
        tokens = tokens + self.drop_path(self.dropout(self.attn(self.norm1(tokens))))
        return tokens + self.drop_path(self.dropout(self.mlp(self.norm2(tokens))))


class MobileViTBlock(nn.Module):
    """Local representations, transformers as convolutions, fusion (figure 1b).

    (N, C, H, W) is kept. The pixels at the same place in all p x p patches form one of p x p
    sequences, which the transformers process independently. A map whose sides are not multiples of
    p is enlarged before the transformers and reduced after them, both bilinearly.

    Args:
        channels: C.
        embed_dims: width of the transformers.
        depth: number of transformer layers.
        num_heads, mlp_ratio: of each layer.
        patch_size: p.
        norm_cfg: config of the norms behind convolutions.
        drop_rate: dropout at the end of both branches of each layer.
        drop_path: stochastic depth of both branches of each layer, by image.
    """

    def __init__(
        self,
        channels: int,
        embed_dims: int,
        depth: int,
        num_heads: int,
        mlp_ratio: int,
        patch_size: int,
        norm_cfg: Mapping[str, Any],
        drop_rate: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.conv_kxk = ConvNormSiLU(channels, channels, 3, norm_cfg=norm_cfg)
        self.conv_1x1 = nn.Conv2d(channels, embed_dims, 1, bias=False)
        self.transformer = nn.Sequential(
            *(
                TransformerLayer(embed_dims, num_heads, mlp_ratio, drop_rate, drop_path)
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(embed_dims)
        self.conv_proj = ConvNormSiLU(embed_dims, channels, norm_cfg=norm_cfg)
        self.conv_fusion = ConvNormSiLU(2 * channels, channels, 3, norm_cfg=norm_cfg)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute local, then global representations, and fuse them with the input."""
        height, width = x.shape[-2:]
        full = (height + -height % self.patch_size, width + -width % self.patch_size)
        # A 1x1 convolution without activation commutes with resizing, so the resizing is done on
        # the side with fewer channels.
        near = self.conv_1x1(resize(self.conv_kxk(x), full))
        far = resize(self.conv_proj.conv(self.attend(near)), (height, width))
        # In the paper's order the norm comes after the resizing, so it takes its statistics there.
        far = self.conv_proj.act(self.conv_proj.norm(far))
        return self.conv_fusion(torch.cat((x, far), dim=1))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Run the transformers on a map (N, C, H, W), whose sides p divides; the shape is kept."""
        tokens = self.norm(self.transformer(unfold(x.permute(0, 2, 3, 1), self.patch_size)))
        return fold(tokens, x.shape[2:], self.patch_size).permute(0, 3, 1, 2)


def resize(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize (N, C, H, W) bilinearly, unless it has that size already."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode='bilinear', align_corners=False)


def unfold(x: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Gather pixels at the same place of all patches: (N, p h, p w, C) to (N, p p, h w, C)."""
    batch, height, width, channels = x.shape
    rows, columns = height // patch_size, width // patch_size
    cells = x.reshape(batch, rows, patch_size, columns, patch_size, channels)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(
        batch, patch_size * patch_size, rows * columns, channels
    )


def fold(tokens: torch.Tensor, size: Sequence[int], patch_size: int) -> torch.Tensor:
    """Undo `unfold`: (N, p p, h w, C) to (N, p h, p w, C), whose sides are ``size``."""
    batch, channels = tokens.shape[0], tokens.shape[-1]
    rows, columns = size[0] // patch_size, size[1] // patch_size
    cells = tokens.reshape(batch, patch_size, patch_size, rows, columns, channels)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, *size, channels)


@MODELS.register_module()
class MobileViT(PyramidBackbone):
    """MobileViT as a pyramid with strides 4, 8, 16, 32.

    Apple's and mmpretrain's weights want images as **BGR scaled to [0, 1], without mean and std**:
    ``DetDataPreprocessor(mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=False)``. With the usual
    ImageNet-normalised RGB they lose accuracy without any error. timm measures its own with RGB
    scaled to [0, 1].

    Sides that are multiples of 64 need no resizing in any stage; others cost a little accuracy.

    Args:
        arch: ``'xxs'``, ``'xs'``, ``'s'``, or a dict of ``stem_dims`` (channels after the first
            block), ``embed_dims`` and ``depths`` (each four numbers: channels of a level, and
            number of blocks after its downsampling, which are inverted residuals in the first stage
            and MobileViT blocks in the others), ``transformer_dims`` (three numbers, one for each
            stage with MobileViT blocks) and ``expand_ratio`` (of the inverted residuals).
        expand_last: pass the last level through the 1x1 convolution that the classifier has before
            its pooling, to 320, 384 or 640 channels, as timm and mmpretrain do. The authors'
            detection and segmentation code has no such convolution; its weights are then left out.
        output_stride: stride of the last level: 32, or 16 as in the authors' segmentation code,
            where the last downsampling keeps the size. The weights are the same.
        drop_rate: dropout in the transformers. The authors train their classifiers with 0.1, and
            xxs with 0.05.
        common: see `PyramidBackbone`, also for shapes and errors. Stochastic depth, which the paper
            does not have, applies to inverted residuals with a residual connection and to both
            branches of the transformer layers, which share one rate within a MobileViT block.
    """

    arch_settings = {
        'xxs': {
            'stem_dims': 16,
            'embed_dims': (24, 48, 64, 80),
            'depths': (2, 1, 1, 1),
            'transformer_dims': (64, 80, 96),
            'expand_ratio': 2,
        },
        'xs': {
            'stem_dims': 32,
            'embed_dims': (48, 64, 80, 96),
            'depths': (2, 1, 1, 1),
            'transformer_dims': (96, 120, 144),
            'expand_ratio': 4,
        },
        's': {
            'stem_dims': 32,
            'embed_dims': (64, 96, 128, 160),
            'depths': (2, 1, 1, 1),
            'transformer_dims': (144, 192, 240),
            'expand_ratio': 4,
        },
    }
    level_strides = (4, 8, 16, 32)
    layouts = LAYOUTS
    first_dims = 16
    transformer_depths = (2, 4, 3)
    num_heads = 4
    mlp_ratio = 2
    patch_size = 2
    last_expand_ratio = 4

    def __init__(
        self,
        arch: Arch,
        *,
        expand_last: bool = False,
        output_stride: int = 32,
        drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        super().__init__(arch, **common)
        if output_stride not in (16, 32):
            raise ConfigError(f'MobileViT: output_stride={output_stride}; choose 16 or 32')
        self.drop_rate = drop_rate
        self.out_strides = tuple(min(stride, output_stride) for stride in self.out_strides)
        stem_dims, embed_dims = self.arch['stem_dims'], self.arch['embed_dims']
        self.stem = nn.Sequential(
            ConvNormSiLU(3, self.first_dims, 3, stride=2, norm_cfg=self.norm_cfg),
            self._mv2_block(self.first_dims, stem_dims),
        )
        self.stages = nn.ModuleList(
            Stage(
                (self._block(i, rate) for rate in self.drop_path_rates()[i]),
                downsample=self._mv2_block(
                    embed_dims[i - 1] if i else stem_dims,
                    embed_dims[i],
                    stride=2 if self.level_strides[i] <= output_stride else 1,
                ),
                with_cp=self.with_cp,
            )
            for i in range(self.num_stages)
        )
        last_level = len(self.level_strides) - 1
        if expand_last and last_level in self.out_indices:
            expanded = self.last_expand_ratio * embed_dims[-1]
            self.conv_1x1_exp = ConvNormSiLU(embed_dims[-1], expanded, norm_cfg=self.norm_cfg)
        self.apply(_init_weights)
        self.finish_init()

    def level_channels(self) -> tuple[int, ...]:
        """Channels of every level, including the expansion of the last one if there is one."""
        channels = super().level_channels()
        if hasattr(self, 'conv_1x1_exp'):
            return (*channels[:-1], self.conv_1x1_exp.conv.out_channels)
        return channels

    def optional_parts(self) -> tuple[str, ...]:
        """The 1x1 expansion, if it was not requested."""
        return () if hasattr(self, 'conv_1x1_exp') else ('conv_1x1_exp.',)

    def forward_output(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """Apply the 1x1 expansion, if there is one, to the last level."""
        is_last = index == len(self.level_strides) - 1
        return self.conv_1x1_exp(x) if is_last and hasattr(self, 'conv_1x1_exp') else x

    def _mv2_block(
        self, in_channels: int, out_channels: int, stride: int = 1, drop_path: float = 0.0
    ) -> MV2Block:
        ratio = self.arch['expand_ratio']
        return MV2Block(in_channels, out_channels, ratio, self.norm_cfg, stride, drop_path)

    def _block(self, stage: int, drop_path: float) -> nn.Module:
        channels = self.arch['embed_dims'][stage]
        if stage == 0:
            return self._mv2_block(channels, channels, drop_path=drop_path)
        return MobileViTBlock(
            channels,
            self.arch['transformer_dims'][stage - 1],
            depth=self.transformer_depths[stage - 1],
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            patch_size=self.patch_size,
            norm_cfg=self.norm_cfg,
            drop_rate=self.drop_rate,
            drop_path=drop_path,
        )


def _init_weights(module: nn.Module) -> None:
    """The initialisation of the authors' ``mobilevit.yaml``."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode='fan_out')
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
