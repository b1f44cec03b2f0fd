"""The ASPP head of MobileViT's DeepLabv3.

apple/ml-cvnets, tag cvnets-v0.1: atrous spatial pyramid pooling (Chen et al.,
https://arxiv.org/abs/1706.05587) whose branches are joined by a 1x1 convolution. mmseg joins them
by a 3x3 one, which has more parameters than the rest of the head.
"""

from typing import Any

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import ASPPHead

from lightvit_mm.registry import MODELS

__all__ = ['PointwiseASPPHead']


@MODELS.register_module()
class PointwiseASPPHead(ASPPHead):
    """mmseg's ``ASPPHead`` with a 1x1 convolution after the branches; same arguments."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bottleneck: ConvModule = ConvModule(
            (len(self.dilations) + 1) * self.channels,
            self.channels,
            1,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )
