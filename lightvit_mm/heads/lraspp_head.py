"""mmseg's LRASPP head for images of any size.

Lite R-ASPP (Howard et al., "Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244)
weighs the channels of its coarsest level by a pooled map. mmseg pools over 49 x 49 places, the map
that Cityscapes gives at stride 16; maps of stride 32 are smaller than that in most images.
"""

from typing import Any

from mmseg.models.decode_heads import LRASPPHead
from torch import nn

from lightvit_mm.registry import MODELS

__all__ = ['GlobalLRASPPHead']


@MODELS.register_module()
class GlobalLRASPPHead(LRASPPHead):
    """mmseg's ``LRASPPHead`` that pools over the whole map; same arguments."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_pool[0] = nn.AdaptiveAvgPool2d(1)
