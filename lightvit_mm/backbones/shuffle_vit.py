"""Plain ViTs with channel shuffle, and the ones that they are compared with: DeiT and T2T-ViT.

Channel shuffle: https://arxiv.org/abs/2310.05642; `lightvit_mm.layers.channel_shuffle` says what is
the paper's, what its first author's forks show, and what is ours. DeiT: Touvron et al., ICML 2021,
https://arxiv.org/abs/2012.12877. T2T-ViT: Yuan et al., ICCV 2021, https://arxiv.org/abs/2101.11986.

None of these papers has a detector. The pyramid is that of detectors from plain ViTs in general:
maps from four depths, or four times the last one, resampled from stride 16 by transposed
convolutions and pooling. Its parameters are in no published file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from lightvit_mm.backbones.pyramid import Arch, PyramidBackbone
from lightvit_mm.backbones.tokens_to_token import TokensToToken
from lightvit_mm.checkpoints.shuffle_vit import deit_layouts, t2t_vit_layouts
from lightvit_mm.deploy.packed import Conv2d
from lightvit_mm.errors import ConfigError
from lightvit_mm.layers import (
    ChannelShuffle,
    GlobalAttention,
    Stage,
    TransformerBlock,
    init_linear,
    pad_to_multiple,
    pyramid_level,
    resize_position,
)
from lightvit_mm.registry import MODELS

__all__ = ['ShuffleDeiT', 'ShuffleT2TViT']

STRIDE = 16
# Tokens of a 224 x 224 image, on which the networks were trained.
NUM_POSITIONS = 14 * 14


class PatchEmbed(nn.Module):
    """Images (N, 3, H, W) to tokens (N, 1 + ceil(H / 16) * ceil(W / 16), C), the class token first.

    The learnt position embedding is interpolated where there are not 14 x 14 patches. Sides that 16
    does not divide are padded with zeros on the right and the bottom.
    """

    def __init__(self, embed_dims: int, num_positions: int) -> None:
        super().__init__()
        self.proj = Conv2d(3, embed_dims, STRIDE, stride=STRIDE)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dims))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + num_positions, embed_dims))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed each patch, and add its position."""
        x = self.proj(pad_to_multiple(x, STRIDE))
        height, width = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat((self.cls_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        return tokens + resize_position(self.pos_embed, height, width)


class ShuffleViT(PyramidBackbone):
    """What `ShuffleDeiT` and `ShuffleT2TViT` share: a flat ViT, its blocks in four groups.

    A family sets the class attributes below, ``make_stem(embed_dims, num_positions)`` and
    ``make_layouts(depths, shuffle)``.
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
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: Mapping[str, Any] | None = None,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        deploy: bool = False,
        init_cfg: dict | list[dict] | None = None,
        shuffle: bool = True,
        rescale: str = 'learnable',
        levels_from: str = 'depths',
    ) -> None:
        super().__init__(
            arch,
            out_indices,
            frozen_stages,
            norm_eval,
            norm_cfg,
            drop_path_rate,
            with_cp,
            deploy,
            init_cfg,
        )
        if levels_from not in ('depths', 'last'):
            raise ConfigError(f"levels_from={levels_from!r}; choose 'depths' or 'last'")
        self.shuffle = shuffle
        self.levels_from = levels_from
        if levels_from == 'last':
            self.num_stages = len(self.level_strides)
        self.layouts = self.make_layouts(self.arch['depths'], shuffle)
        embed_dims = self.level_channels()[0]
        self.stem = self.make_stem(embed_dims, NUM_POSITIONS)
        self.stages = nn.ModuleList(
            Stage(self._blocks(i, rescale if shuffle else 'none'), with_cp=with_cp)
            for i in range(self.num_stages)
        )
        self.levels = nn.ModuleDict(
            {
                str(i): pyramid_level(self.level_strides[i], embed_dims, self.norm_cfg)
                for i in self.out_indices
            }
        )
        self.apply(init_linear)
        self.finish_init()

    def level_channels(self) -> tuple[int, ...]:
        """Channels of every level, all the same: both halves."""
        return ((1 + self.shuffle) * self.arch['attend_dims'],) * len(self.level_strides)

    def optional_parts(self) -> tuple[str, ...]:
        """What makes the levels that are not returned."""
        return tuple(
            f'levels.{i}.' for i in range(len(self.level_strides)) if i not in self.out_indices
        )

    def unpublished_parts(self) -> tuple[str, ...]:
        """What makes the levels."""
        return ('levels.',)

    def stage_maps(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The patch tokens after each stage as maps, before a pyramid is made of them.

        Args:
            x: images (N, 3, H, W).

        Returns:
            For each stage a map (N, C, ceil(H / 16), ceil(W / 16)).
        """
        height, width = (-(-side // STRIDE) for side in x.shape[-2:])
        tokens, maps = self.stem(x), []
        for stage in self.stages:
            tokens = stage(tokens)
            maps.append(tokens[:, 1:].unflatten(1, (height, width)).permute(0, 3, 1, 2))
        return tuple(maps)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the pyramid, see `PyramidBackbone.forward`."""
        maps = self.stage_maps(x)
        outs = []
        for index in self.out_indices:
            out = self.forward_output(index, maps[-1 if self.levels_from == 'last' else index])
            height, width = (-(-side // self.level_strides[index]) for side in x.shape[-2:])
            outs.append(out[..., :height, :width])
        return tuple(outs)

    def forward_output(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """A map of stride 16 resampled to the stride of level ``index``."""
        return self.levels[str(index)](x)

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
    two parameters a block, 24 to ``tiny``. There are no published weights but for the plain
    network, ``shuffle=False``; those of distilled models, which have one token more, are refused.

    Args:
        arch: ``'tiny'``, or a dict of ``attend_dims`` (channels that are attended to), ``depths``
            (of four groups of blocks, behind each of which a level is taken) and ``num_heads``.
        shuffle: False builds the plain network of width ``attend_dims``, without rescaling.
        rescale: what the shortcuts of each block are multiplied with: ``'learnable'`` scalars
            that start at 0.5, ``'fixed'`` 0.5, or ``'none'``.
        levels_from: make the levels from the maps at four ``'depths'``, or all from the ``'last'``.
        norm_cfg: config of the one BatchNorm, which is in the level of stride 4.
        out_indices, frozen_stages, norm_eval, drop_path_rate, with_cp, deploy, init_cfg:
            see `PyramidBackbone`, also for the shapes and the errors.
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
    two parameters a block: 14, 20 and 24. ``'fixed'`` multiplies the shortcuts, while the author's
    fork multiplies the output of each block.

    Args:
        arch: ``'7'``, ``'10'``, ``'12'``, or a dict as for `ShuffleDeiT`, which also explains all
            other arguments.
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
