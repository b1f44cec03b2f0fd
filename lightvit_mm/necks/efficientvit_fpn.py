"""The feature pyramid network of EfficientViT's detectors.

From the authors' detection code, microsoft/Cream at 4a13c40, EfficientViT/downstream; the paper
(Liu et al., CVPR 2023, https://arxiv.org/abs/2305.07027) does not describe it. Outputs and weight
names are the same. Unlike that code, it also works without extra levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import nn
from torch.nn import functional as F

from lightvit_mm.errors import ConfigError
from lightvit_mm.registry import MODELS

__all__ = ['EfficientViTFPN']

# For all but the transposed convolutions, which keep the Kaiming initialisation of ConvModule.
XAVIER = {'type': 'Xavier', 'layer': 'Conv2d', 'distribution': 'uniform'}
EXTRA_SOURCES = ('on_input', 'on_lateral', 'on_output')


@MODELS.register_module()
class EfficientViTFPN(BaseModule):
    """FPN whose transposed convolutions add levels finer than the finest input.

    With inputs of strides 16, 32, 64 and five outputs, one transposed convolution gives strides 8
    to 128 (RetinaNet), two give 4 to 64 (Mask R-CNN). There are no norms and no activations.

    Args:
        in_channels: channels of the inputs, fine to coarse.
        out_channels: channels of every output.
        num_outs: number of outputs: one per input used, ``num_extra_trans_convs`` finer ones, the
            rest coarser ones.
        start_level: the finest input used; those before it are ignored.
        add_extra_convs: input of the 3x3 convolution of stride 2 that computes the first coarser
            output (the others continue from there): ``'on_input'`` (or True) for the coarsest
            input, ``'on_lateral'`` for its lateral, ``'on_output'`` for the coarsest output. With
            False, coarser outputs are every other pixel of the one before.
        num_extra_trans_convs: number of finer outputs, each twice the size of the next.
        init_cfg: mmengine's; by default Xavier for all but the transposed convolutions.

    Raises:
        ValueError: ``num_outs`` is too small for these levels, or ``add_extra_convs`` is unknown.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int,
        start_level: int = 0,
        add_extra_convs: bool | str = False,
        num_extra_trans_convs: int = 0,
        init_cfg: dict | list[dict] | None = XAVIER,
    ) -> None:
        super().__init__(init_cfg)
        used = list(in_channels)[start_level:]
        num_coarser = num_outs - len(used) - num_extra_trans_convs
        if not used or num_coarser < 0:
            raise ConfigError(
                f'EfficientViTFPN: num_outs={num_outs} outputs cannot hold the {len(used)} levels '
                f'of in_channels={list(in_channels)} from start_level={start_level} and '
                f'num_extra_trans_convs={num_extra_trans_convs}'
            )
        if add_extra_convs not in (False, True, *EXTRA_SOURCES):
            raise ConfigError(
                f'EfficientViTFPN: add_extra_convs={add_extra_convs!r}; choose False, True or one '
                f'of {", ".join(map(repr, EXTRA_SOURCES))}'
            )
        self.in_channels = list(in_channels)
        self.out_channels = out_channels
        self.start_level = start_level
        self.num_coarser = num_coarser
        self.extra_source = 'on_input' if add_extra_convs is True else add_extra_convs

        self.lateral_convs = nn.ModuleList(
            ConvModule(channels, out_channels, 1, act_cfg=None) for channels in used
        )
        self.fpn_convs = nn.ModuleList(self._smoothing() for _ in used)
        for i in range(num_coarser if self.extra_source else 0):
            source = used[-1] if i == 0 and self.extra_source == 'on_input' else out_channels
            self.fpn_convs.append(
                ConvModule(source, out_channels, 3, stride=2, padding=1, act_cfg=None)
            )
        self.extra_trans_convs = nn.ModuleList(
            ConvModule(
                out_channels, out_channels, 2, stride=2, conv_cfg={'type': 'deconv'}, act_cfg=None
            )
            for _ in range(num_extra_trans_convs)
        )
        self.extra_fpn_convs = nn.ModuleList(
            self._smoothing() for _ in range(num_extra_trans_convs)
        )

    def _smoothing(self) -> ConvModule:
        return ConvModule(self.out_channels, self.out_channels, 3, padding=1, act_cfg=None)

    def forward(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Compute the pyramid.

        Args:
            inputs: maps (N, in_channels[i], H_i, W_i), fine to coarse, of any sizes.

        Returns:
            ``num_outs`` maps (N, out_channels, H, W), fine to coarse. Those for the inputs have
            the sizes of the inputs. Each finer one is twice as large as the next, which is more
            than ceil(side / stride) if 16 does not divide the sides of the image. Each coarser
            one is half as large as the one before, rounded up.

        Raises:
            ValueError: the number of inputs is not that of ``in_channels``.
        """
        if len(inputs) != len(self.in_channels):
            raise ConfigError(
                f'EfficientViTFPN: {len(inputs)} inputs for in_channels={self.in_channels}'
            )
        used = inputs[self.start_level :]
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, used, strict=True)]
        for i in range(len(laterals) - 1, 0, -1):
            upsampled = F.interpolate(laterals[i], laterals[i - 1].shape[2:], mode='nearest')
            laterals[i - 1] = laterals[i - 1] + upsampled
        outs = [conv(x) for conv, x in zip(self.fpn_convs[: len(used)], laterals, strict=True)]
        if self.extra_source:
            x = {'on_input': used[-1], 'on_lateral': laterals[-1], 'on_output': outs[-1]}[
                self.extra_source
            ]
            for conv in self.fpn_convs[len(used) :]:
                x = conv(x)
                outs.append(x)
        else:
            for _ in range(self.num_coarser):
                outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return (*self._finer_outs(laterals[0]), *outs)

    def _finer_outs(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Compute the levels finer than the finest lateral, fine to coarse."""
        finer: list[torch.Tensor] = []
        for conv in self.extra_trans_convs:
            x = conv(x)
            finer.insert(0, x)
        # The released weights have opposite orders: the first transposed convolution makes the
        # coarsest of these maps, the first 3x3 convolution smooths the finest.
        return [conv(x) for conv, x in zip(self.extra_fpn_convs, finer, strict=True)]
