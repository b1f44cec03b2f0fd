"""RepViT.

Wang et al., "RepViT: Revisiting Mobile CNN From ViT Perspective", CVPR 2024,
https://arxiv.org/abs/2307.09283. Numbers equal those of the authors' code, THU-MIG/RepViT at
298f420 (of its three copies there is one here, for all tasks), and of timm 1.0.31.

Differences from that code: stages instead of one list of blocks; the 1x1 branch of the depthwise
unit is computed as a scale and shift; BatchNorm statistics are frozen only on request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from mmcv.cnn import build_norm_layer
from torch import nn

from lightvit_mm.backbones.pyramid import Arch, PyramidBackbone
from lightvit_mm.checkpoints.repvit import make_layouts
from lightvit_mm.errors import ConfigError
from lightvit_mm.layers import ConvNorm, ConvNormAct, DropPath, SqueezeExcite, Stage
from lightvit_mm.layers.fold import add_identity_to_depthwise, fuse_conv_and_norm
from lightvit_mm.registry import MODELS

__all__ = ['RepViT']

TAPS = ('stage', 'pre_block')


class Stem(nn.Sequential):
    """Two convolutions of stride 2: (N, 3, H, W) to (N, C, ceil(H / 4), ceil(W / 4))."""

    def __init__(self, embed_dims: int, norm_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        half = embed_dims // 2
        self.conv1 = ConvNormAct(3, half, 3, stride=2, norm_cfg=norm_cfg, act=nn.GELU)
        self.conv2 = ConvNorm(half, embed_dims, 3, stride=2, norm_cfg=norm_cfg)


class ScaleAndIdentity(nn.Conv2d):
    """``x + depthwise 1x1 (x)``, computed as one scale and shift per channel; shape kept."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 1, groups=channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale and shift each channel."""
        # Many times faster than a grouped 1x1 convolution and a sum, forward and backward.
        assert self.bias is not None
        scale, shift = self.weight.view(-1, 1, 1) + 1, self.bias.view(-1, 1, 1)
        return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype))


class RepVGGDW(nn.Module):
    """Depthwise 3x3 convolution with two parallel branches, 1x1 and identity; shape kept.

    A norm follows the sum. The first version of the paper had it on the 1x1 branch instead, which
    computes the same function; weights of that version are converted on loading.
    """

    def __init__(self, channels: int, norm_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.conv: nn.Module = ConvNorm(channels, channels, 3, groups=channels, norm_cfg=norm_cfg)
        self.conv1x1 = ScaleAndIdentity(channels)
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.folded = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum the branches and normalise; once folded, this is one convolution."""
        if self.folded:
            return self.conv(x)
        return self.norm(self.conv(x) + self.conv1x1(x))

    def fold(self) -> None:
        """Fold all branches and the norm into the 3x3 kernel."""
        conv = cast(ConvNorm, self.conv).conv
        assert conv.bias is not None and self.conv1x1.bias is not None
        add_identity_to_depthwise(conv)
        with torch.no_grad():
            conv.weight[:, :, 1:2, 1:2] += self.conv1x1.weight
            conv.bias += self.conv1x1.bias
        self.conv = fuse_conv_and_norm(conv, self.norm)
        del self.conv1x1, self.norm
        self.folded = True


class ChannelMixer(nn.Module):
    """Residual feed-forward network of two 1x1 convolutions, initially the identity; shape kept."""

    expansion = 2

    def __init__(self, channels: int, norm_cfg: Mapping[str, Any], drop_path: float) -> None:
        super().__init__()
        hidden = self.expansion * channels
        self.conv1 = ConvNormAct(channels, hidden, norm_cfg=norm_cfg, act=nn.GELU)
        self.conv2 = ConvNorm(hidden, channels, norm_cfg=norm_cfg, norm_weight=0)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Expand, activate, reduce, and add to the input."""
        return x + self.drop_path(self.conv2(self.conv1(x)))


class RepViTBlock(nn.Sequential):
    """Token mixer, squeeze-and-excitation if ``use_se``, channel mixer; shape kept."""

    def __init__(
        self, channels: int, use_se: bool, norm_cfg: Mapping[str, Any], drop_path: float
    ) -> None:
        super().__init__()
        self.token_mixer = RepVGGDW(channels, norm_cfg)
        if use_se:
            self.se = SqueezeExcite(channels)
        self.channel_mixer = ChannelMixer(channels, norm_cfg, drop_path)


class Downsample(nn.Sequential):
    """Deeper downsampling: (N, C, H, W) to (N, C', ceil(H / 2), ceil(W / 2)).

    A block without squeeze-and-excitation, a depthwise convolution of stride 2, a 1x1 convolution
    to the new width, and a feed-forward network.
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

    Old files use the names of the paper's first version: ``'m1'`` is today's ``'m0_9'``, ``'m2'``
    is ``'m1_1'``, and ``'m3'`` has no successor. The authors' links to them are dead; timm has the
    weights as ``repvit_m1.dist_in1k`` and so on.

    Args:
        arch: ``'m0_6'``, ``'m0_9'``, ``'m1_0'``, ``'m1_1'``, ``'m1_5'``, ``'m2_3'``, the first
            version's ``'m1'``, ``'m2'``, ``'m3'``, or a dict of ``embed_dims`` and ``depths``
            (each four numbers). Every other block of a stage has squeeze-and-excitation, beginning
            with the first.
        tap: where the first three levels are taken. ``'stage'``: after the blocks of a stage, as in
            the authors' COCO configs and in timm. ``'pre_block'``: one block later, after the first
            block of the next downsampling, as in the authors' ADE20K configs. The parameters have
            the same names either way. With ``'pre_block'`` that block belongs to the level before
            it: it is built for the last level too (without the rest of the downsampling), and
            ``frozen_stages`` covers it.
        common: see `PyramidBackbone`, also for shapes and errors. The authors' downstream results
            were trained with ``norm_eval=True`` and nothing frozen. A downsampling has the drop
            path rate of the block after it.
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
        *,
        tap: str = 'stage',
        **common: Any,
    ) -> None:
        super().__init__(arch, **common)
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
        """Compute the pyramid: (N, 3, H, W) to one map per level, see `PyramidBackbone.forward`."""
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
        """The rest of the downsampling that the last level ends in, and the stage after it."""
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
