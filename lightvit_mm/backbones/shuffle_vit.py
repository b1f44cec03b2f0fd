"""Plain ViTs with channel shuffle, and the ones that they are compared with: DeiT and T2T-ViT.

Channel shuffle: https://arxiv.org/abs/2310.05642; `lightvit_mm.layers.channel_shuffle` lists what
comes from the paper, what from its first author's forks, and what is our choice. DeiT: Touvron et
al., ICML 2021, https://arxiv.org/abs/2012.12877. T2T-ViT: Yuan et al., ICCV 2021,
https://arxiv.org/abs/2101.11986.

None of these papers has a detector. The pyramid is the usual one of detectors with plain ViTs, as
in the detection code of BEiT (Bao et al., ICLR 2022, https://arxiv.org/abs/2106.08254) and mmseg's
``Feature2Pyramid``: maps from four depths, or four times the last map, are resampled from stride 16
by transposed convolutions and pooling. No published file has its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from mmcv.cnn import build_norm_layer
from torch import nn
from torch.nn import functional as F

from lightvit_mm.backbones.pyramid import Arch, PyramidBackbone
from lightvit_mm.backbones.tokens_to_token import TokensToToken
from lightvit_mm.checkpoints.shuffle_vit import deit_layouts, t2t_vit_layouts
from lightvit_mm.errors import ConfigError
from lightvit_mm.layers import (
    ChannelShuffle,
    Stage,
    TransformerBlock,
    init_linear,
    pad_to_multiple,
    resize_position,
)
from lightvit_mm.layers.fold import fold_affine_into_next_linear, fold_norm_into_transposed_conv
from lightvit_mm.registry import MODELS

__all__ = ['ShuffleDeiT', 'ShuffleT2TViT']

STRIDE = 16
# Patches of a 224 x 224 image, the size at which the networks were trained.
NUM_POSITIONS = 14 * 14


class PatchEmbed(nn.Module):
    """Images (N, 3, H, W) to tokens (N, 1 + ceil(H / 16) * ceil(W / 16), C), the class token first.

    The learnt position embedding is interpolated unless there are 14 x 14 patches. Sides that are
    not multiples of 16 are zero-padded on the right and bottom.
    """

    def __init__(self, embed_dims: int, num_positions: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dims, STRIDE, stride=STRIDE)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dims))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + num_positions, embed_dims))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed each patch, and add its position embedding."""
        x = self.proj(pad_to_multiple(x, STRIDE))
        height, width = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat((self.cls_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        return tokens + resize_position(self.pos_embed, height, width)


class GlobalAttention(nn.Module):
    """Self-attention of all tokens; (N, L, C) kept."""

    def __init__(self, dims: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dims, 3 * dims, bias=qkv_bias)
        self.proj = nn.Linear(dims, dims)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Let all tokens attend to each other."""
        batch, length, dims = x.shape
        query, key, value = (
            self.qkv(x)
            .reshape(batch, length, 3, self.num_heads, dims // self.num_heads)
            .permute(2, 0, 3, 1, 4)  # (3, N, heads, L, C / heads)
        )
        x = F.scaled_dot_product_attention(query, key, value)
        return self.proj(x.transpose(1, 2).reshape(batch, length, dims))

    def fold_norm(self, norm: nn.LayerNorm) -> None:
        """Take over scale and shift of the norm before the attention."""
        fold_affine_into_next_linear(norm, self.qkv)


class Upsample2(nn.ConvTranspose2d):
    """(N, C, H, W) to (N, C, 2H, 2W) by a transposed convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 2, stride=2)


class Upsample4(nn.Module):
    """(N, C, H, W) to (N, C, 4H, 4W) by two transposed convolutions, norm and GELU between."""

    def __init__(self, channels: int, norm_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.up1 = Upsample2(channels)
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.act = nn.GELU()
        self.up2 = Upsample2(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Upsample twice by 2."""
        return self.up2(self.act(self.norm(self.up1(x))))

    def fold(self) -> None:
        """Fold the norm into the convolution before it."""
        fold_norm_into_transposed_conv(self.up1, self.norm)
        self.norm = nn.Identity()


def make_level(stride: int, channels: int, norm_cfg: Mapping[str, Any]) -> nn.Module:
    """A module that turns a map of stride 16 into the level of ``stride`` 4, 8, 16 or 32."""
    if stride == 4:
        return Upsample4(channels, norm_cfg)
    if stride == 8:
        return Upsample2(channels)
    return nn.Identity() if stride == 16 else nn.MaxPool2d(2, ceil_mode=True)


class ShuffleViT(PyramidBackbone):
    """What `ShuffleDeiT` and `ShuffleT2TViT` share: a flat ViT with its blocks in four groups.

    A family sets the class attributes below, among them ``make_stem(embed_dims, num_positions)``
    and ``make_layouts(depths, shuffle)``.
    """

    level_strides = (4, 8, 16, 32)
    mlp_ratio: ClassVar[int]
    norm_eps: ClassVar[float]
    qkv_bias: ClassVar[bool]
    make_stem: ClassVar[type[nn.Module]]
    make_layouts: ClassVar[Any]

    def __init__(
        self,
        arch: Arch,
        *,
        shuffle: bool = True,
        rescale: str = 'learnable',
        levels_from: str = 'depths',
        class_token: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(arch, **common)
        if levels_from not in ('depths', 'last'):
            raise ConfigError(f"levels_from={levels_from!r}; choose 'depths' or 'last'")
        self.shuffle = shuffle
        self.levels_from = levels_from
        self.class_token = class_token
        if class_token and len(self.out_indices) < len(self.level_strides):
            raise ConfigError('class_token=True returns no levels, so out_indices has no effect')
        if class_token:
            self.out_indices, self.out_strides = (), ()
        if levels_from == 'last' or class_token:
            self.num_stages = len(self.level_strides)
        self.layouts = self.make_layouts(self.arch['depths'], shuffle)
        embed_dims = self.level_channels()[0]
        self.stem = self.make_stem(embed_dims, NUM_POSITIONS)
        self.stages = nn.ModuleList(
            Stage(self._blocks(i, rescale if shuffle else 'none'), with_cp=self.with_cp)
            for i in range(self.num_stages)
        )
        self.levels = nn.ModuleDict(
            {
                str(i): make_level(self.level_strides[i], embed_dims, self.norm_cfg)
                for i in self.out_indices
            }
        )
        self.apply(init_linear)
        self.finish_init()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output."""
        return self.level_channels()[:1] if self.class_token else super().out_channels

    def level_channels(self) -> tuple[int, ...]:
        """Channels of every level, all the same: the attended half, and the idle one if any."""
        halves = 2 if self.shuffle else 1
        return (halves * self.arch['attend_dims'],) * len(self.level_strides)

    def optional_parts(self) -> tuple[str, ...]:
        """The resampling of the levels that are not returned."""
        return tuple(
            f'levels.{i}.' for i in range(len(self.level_strides)) if i not in self.out_indices
        )

    def unpublished_parts(self) -> tuple[str, ...]:
        """The resampling of all levels."""
        return ('levels.',)

    def stage_maps(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The patch tokens after each stage as maps, before resampling.

        Args:
            x: images (N, 3, H, W).

        Returns:
            One map for each stage: (N, C, ceil(H / 16), ceil(W / 16)).
        """
        height, width = (-(-side // STRIDE) for side in x.shape[-2:])
        return tuple(
            tokens[:, 1:].unflatten(1, (height, width)).permute(0, 3, 1, 2)
            for tokens in self._stage_tokens(x)
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the pyramid: (N, 3, H, W) to one map per level, see `PyramidBackbone.forward`.

        With ``class_token`` it is the token alone, as a map (N, C, 1, 1).
        """
        if self.class_token:
            return (self._stage_tokens(x)[-1][:, 0, :, None, None],)
        maps = self.stage_maps(x)
        outs = []
        for index in self.out_indices:
            out = self.forward_output(index, maps[-1 if self.levels_from == 'last' else index])
            height, width = (-(-side // self.level_strides[index]) for side in x.shape[-2:])
            outs.append(out[..., :height, :width])
        return tuple(outs)

    def forward_output(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """Resample a map of stride 16 to the stride of level ``index``."""
        return self.levels[str(index)](x)

    def _stage_tokens(self, x: torch.Tensor) -> list[torch.Tensor]:
        """All tokens after each stage, the class token first: (N, 1 + L, C)."""
        tokens, after = self.stem(x), []
        for stage in self.stages:
            tokens = stage(tokens)
            after.append(tokens)
        return after

    def _blocks(self, stage: int, rescale: str) -> list[nn.Module]:
        dims = self.arch['attend_dims']
        blocks: list[nn.Module] = [
            TransformerBlock(
                GlobalAttention(dims, self.arch['num_heads'], self.qkv_bias),
                dims,
                self.mlp_ratio,
                self.norm_eps,
                drop_path,
                rescale,
            )
            for drop_path in self.drop_path_rates()[stage]
        ]
        return [ChannelShuffle(block) for block in blocks] if self.shuffle else blocks


@MODELS.register_module()
class ShuffleDeiT(ShuffleViT):
    """Channel-shuffle DeiT as a pyramid with strides 4, 8, 16, 32.

    The levels are twice as wide as ``attend_dims``: 384 channels. ``'learnable'`` rescaling adds
    two parameters per block, 24 in ``tiny``. Only the plain network, ``shuffle=False``, has
    published weights; those of distilled models, which have an additional token, are refused.

    Args:
        arch: ``'tiny'``, or a dict of ``attend_dims`` (channels that are attended to), ``depths``
            (of four groups of blocks, after each of which a level is taken) and ``num_heads``.
        shuffle: False builds the plain network of width ``attend_dims``, without rescaling.
        rescale: factor of the shortcuts of each block: ``'learnable'`` scalars that start at 0.5,
            ``'fixed'`` 0.5, or ``'none'``.
        levels_from: make the levels from the maps at four ``'depths'``, or all from the ``'last'``.
        class_token: return no levels but the class token after the last block, for a classifier:
            one map (N, C, 1, 1). ``out_strides`` is then empty.
        common: see `PyramidBackbone`, also for shapes and errors. The only BatchNorm is in the
            level of stride 4.
    """

    arch_settings = {'tiny': {'attend_dims': 192, 'depths': (3, 3, 3, 3), 'num_heads': 3}}
    mlp_ratio = 4
    norm_eps = 1e-6
    qkv_bias = True
    make_stem = PatchEmbed
    make_layouts = staticmethod(deit_layouts)


@MODELS.register_module()
class ShuffleT2TViT(ShuffleViT):
    """Channel-shuffle T2T-ViT as a pyramid with strides 4, 8, 16, 32.

    The levels are twice as wide as ``attend_dims``: 512 channels. ``'learnable'`` rescaling adds
    two
    parameters per block: 14, 20 and 24. ``'fixed'`` multiplies the shortcuts, where the author's
    fork multiplies the output of each block.

    Args:
        arch: ``'7'``, ``'10'``, ``'12'``, or a dict as for `ShuffleDeiT`.
        shuffle, rescale, levels_from, class_token, common: see `ShuffleDeiT`.
    """

    arch_settings = {
        '7': {'attend_dims': 256, 'depths': (1, 2, 2, 2), 'num_heads': 4},
        '10': {'attend_dims': 256, 'depths': (2, 3, 2, 3), 'num_heads': 4},
        '12': {'attend_dims': 256, 'depths': (3, 3, 3, 3), 'num_heads': 4},
    }
    mlp_ratio = 2
    norm_eps = 1e-5
    qkv_bias = False
    make_stem = TokensToToken
    make_layouts = staticmethod(t2t_vit_layouts)
