"""RepViT.

Wang et al., "RepViT: Revisiting Mobile CNN From ViT Perspective", CVPR 2024,
https://arxiv.org/abs/2307.09283. Numbers equal those of the authors' code, THU-MIG/RepViT at
298f420 (of its three copies there is one here, for all tasks), and of timm 1.0.31.

What differs from that code: stages instead of one list of blocks; the 1x1 branch of the depthwise
unit is a scale and shift, and no convolution; BatchNorm statistics are frozen only on request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from mmcv.cnn import build_norm_layer
from torch import nn

from lightvit_mm.backbones.pyramid import Arch, PyramidBackbone
from lightvit_mm.checkpoints.repvit import make_layouts
from lightvit_mm.deploy.fold import add_identity_to_depthwise, fuse_conv_and_norm
from lightvit_mm.errors import ConfigError
from lightvit_mm.layers import (
    ConvNorm,
    DropPath,
    SqueezeExcite,
    Stage,
    chain,
)
from lightvit_mm.registry import MODELS

__all__ = ['RepViT']

TAPS = ('stage', 'pre_block')


class Stem(nn.Module):
    """Two convolutions of stride 2: (N, 3, H, W) to (N, C, ceil(H / 4), ceil(W / 4))."""

    def __init__(self, embed_dims: int, norm_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, embed_dims // 2, 3, stride=2, norm_cfg=norm_cfg)
        self.conv2 = ConvNorm(embed_dims // 2, embed_dims, 3, stride=2, norm_cfg=norm_cfg)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Reduce twice, with GELU between."""
        return chain(x, 'gelu', self.conv1, self.conv2)


class RepVGGDW(nn.Module):
    """Depthwise 3x3 with two parallel branches, a 1x1 and the identity; shape kept.

    A norm follows the sum. The first version of the paper had it on the 1x1 branch instead, which
    computes the same function; its weights are converted on loading.
    """

    def __init__(self, channels: int, norm_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.conv: nn.Module = ConvNorm(channels, channels, 3, groups=channels, norm_cfg=norm_cfg)
        self.conv1x1 = nn.Conv2d(channels, channels, 1, groups=channels)
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.folded = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum the branches and normalise; folded, it is one convolution."""
        if self.folded:
            return self.conv(x)
        return self.norm(self.conv(x) + self._scale_and_identity(x))

    def fold(self) -> None:
        """Put all branches and the norm into the 3x3 kernel."""
        conv = cast(ConvNorm, self.conv).conv
        assert conv.bias is not None and self.conv1x1.bias is not None
        add_identity_to_depthwise(conv)
        with torch.no_grad():
            conv.weight[:, :, 1:2, 1:2] += self.conv1x1.weight
            conv.bias += self.conv1x1.bias
        self.conv = fuse_conv_and_norm(conv, self.norm)
        del self.conv1x1, self.norm
        self.folded = True

    def _scale_and_identity(self, x: torch.Tensor) -> torch.Tensor:
        # Many times faster than a grouped 1x1 convolution and an addition, forward and backward.
        scale, shift = self.conv1x1.weight.view(-1, 1, 1) + 1, self.conv1x1.bias
        assert shift is not None
        return torch.addcmul(shift.view(-1, 1, 1).to(x.dtype), x, scale.to(x.dtype))


class ChannelMixer(nn.Module):
    """Residual feed-forward of two 1x1 convolutions, shape kept; it starts as the identity."""

    expansion = 2

    def __init__(self, channels: int, norm_cfg: Mapping[str, Any], drop_path: float) -> None:
        super().__init__()
        hidden = self.expansion * channels
        self.conv1 = ConvNorm(channels, hidden, norm_cfg=norm_cfg)
        self.conv2 = ConvNorm(hidden, channels, norm_cfg=norm_cfg, norm_weight=0)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Expand, activate, reduce, add."""
        return self.drop_path(x, chain(x, 'gelu', self.conv1, self.conv2))


class RepViTBlock(nn.Sequential):
    """Depthwise token mixer, squeeze-excitation where asked for, channel mixer; shape kept."""

    def __init__(
        self, channels: int, use_se: bool, norm_cfg: Mapping[str, Any], drop_path: float
    ) -> None:
        super().__init__()
        self.token_mixer = RepVGGDW(channels, norm_cfg)
        if use_se:
            self.se = SqueezeExcite(channels)
        self.channel_mixer = ChannelMixer(channels, norm_cfg, drop_path)


class Downsample(nn.Sequential):
    """The deep downsampling: (N, C, H, W) to (N, C', ceil(H / 2), ceil(W / 2)).

    A block without squeeze-excitation, then space, then channels, then a feed-forward.
    """

    def __init__(
        self, in_channels: int, channels: int, norm_cfg: Mapping[str, Any], drop_path: float
    ) -> None:
        super().__init__()
        self.pre_block = RepViTBlock(in_channels, False, norm_cfg, drop_path)
        self.spatial = ConvNorm(
            in_channels, in_channels, 3, stride=2, groups=in_channels, norm_cfg=norm_cfg
        )
        self.channel = ConvNorm(in_channels, channels, norm_cfg=norm_cfg)
        self.ffn = ChannelMixer(channels, norm_cfg, drop_path)


@MODELS.register_module()
class RepViT(PyramidBackbone):
    """RepViT as a pyramid with strides 4, 8, 16, 32.

    The names of the first version live on in old files: ``'m1'`` is today's ``'m0_9'``, ``'m2'``
    is ``'m1_1'``, and ``'m3'`` has no successor. Their authors' links are dead; timm has the
    weights as ``repvit_m1.dist_in1k`` and so on.

    Args:
        arch: ``'m0_6'``, ``'m0_9'``, ``'m1_0'``, ``'m1_1'``, ``'m1_5'``, ``'m2_3'``, the first
            version's ``'m1'``, ``'m2'``, ``'m3'``, or a dict of ``embed_dims`` and ``depths``
            (each four numbers). Squeeze-excitation is in every other block of a stage, from its
            first on.
        tap: where the first three levels are taken. ``'stage'``: behind the blocks of a stage, as
            the authors' COCO configs and timm do. ``'pre_block'``: one block later, behind the
            first block of the downsampling that follows, as the authors' ADE20K configs do.
            Parameters have the same names either way. With ``'pre_block'`` that block counts to
            the level in front of it: it is built for the last level too (without the rest of the
            downsampling) and ``frozen_stages`` covers it.
        out_indices, frozen_stages, norm_eval, norm_cfg, drop_path_rate, with_cp, deploy, init_cfg:
            see `PyramidBackbone`, also for the shapes and the errors. The authors' downstream
            results were trained with ``norm_eval=True`` and nothing frozen. A downsampling drops
            paths at the rate of the block behind it.
    """

    arch_settings = {
        'm0_6': {'embed_dims': (40, 80, 160, 320), 'depths': (1, 1, 8, 1)},
        'm0_9': {'embed_dims': (48, 96, 192, 384), 'depths': (2, 2, 14, 2)},
        'm1_0': {'embed_dims': (56, 112, 224, 448), 'depths': (2, 2, 14, 2)},
        'm1_1': {'embed_dims': (64, 128, 256, 512), 'depths': (2, 2, 12, 2)},
        'm1_5': {'embed_dims': (64, 128, 256, 512), 'depths': (4, 4, 24, 4)},
        'm2_3': {'embed_dims': (80, 160, 320, 640), 'depths': (6, 6, 34, 2)},
        'm1': {'embed_dims': (48, 96, 192, 384), 'depths': (2, 2, 14, 2)},
        'm2': {'embed_dims': (64, 128, 256, 512), 'depths': (2, 2, 12, 2)},
        'm3': {'embed_dims': (64, 128, 256, 512), 'depths': (4, 4, 18, 2)},
    }
    level_strides = (4, 8, 16, 32)

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
        tap: str = 'stage',
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
        if tap not in TAPS:
            raise ConfigError(
                f'RepViT has no tap {tap!r}; choose one of {", ".join(map(repr, TAPS))}'
            )
        self.tap = tap
        self.layouts = make_layouts(self.arch['depths'])
        self.stem = Stem(self.arch['embed_dims'][0], self.norm_cfg)
        self.stages = nn.ModuleList(self._make_stage(i) for i in range(self.num_stages))
        self.ends_in_pre_block = tap == 'pre_block' and self.num_stages < len(self.level_strides)
        if self.ends_in_pre_block:
            channels = self.arch['embed_dims'][self.num_stages - 1]
            drop_path = self.drop_path_rates()[self.num_stages][0]
            pre_block = RepViTBlock(channels, False, self.norm_cfg, drop_path)
            self.stages.append(Stage((), nn.Sequential(OrderedDict(pre_block=pre_block))))
        self.finish_init()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the pyramid, (N, 3, H, W) to one map a level (see `PyramidBackbone`)."""
        if self.tap == 'stage':
            return super().forward(x)
        x = self.stem(x)
        outs = []
        for index, stage in enumerate(cast(Iterable[Stage], self.stages)):
            if index:
                pre_block, *reduction = cast(nn.Sequential, stage.downsample)
                x = pre_block(x)
                if index - 1 in self.out_indices:
                    outs.append(x)
                for part in reduction:
                    x = part(x)
            x = stage.run_blocks(x)
        if not self.ends_in_pre_block:
            outs.append(x)
        return tuple(outs)

    def optional_parts(self) -> tuple[str, ...]:
        """What follows the block that the last level ends in."""
        if not self.ends_in_pre_block:
            return ()
        stage = f'stages.{self.num_stages}'
        reduction = tuple(f'{stage}.downsample.{name}.' for name in ('spatial', 'channel', 'ffn'))
        return (*reduction, f'{stage}.blocks.')

    def _make_stage(self, index: int) -> Stage:
        rates = self.drop_path_rates()[index]
        in_channels, channels = (self.arch['embed_dims'][i] for i in (index - 1, index))
        blocks = (
            RepViTBlock(channels, block % 2 == 0, self.norm_cfg, rate)
            for block, rate in enumerate(rates)
        )
        downsample = Downsample(in_channels, channels, self.norm_cfg, rates[0]) if index else None
        return Stage(blocks, downsample, self.with_cp)

    def _freeze(self) -> None:
        super()._freeze()
        if self.tap == 'pre_block' and 0 < self.frozen_stages < len(self.stages):
            name = f'stages.{self.frozen_stages}.downsample.pre_block'
            self.get_submodule(name).eval().requires_grad_(False)
