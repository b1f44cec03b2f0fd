"""mmdet's SSD head, made to predict again.

mmdet 3.3.0 asks every head for ``loss_cls`` before it predicts, and its own SSD head has none
(https://github.com/open-mmlab/mmdetection/issues/11780).
"""

from typing import Any

from mmdet.models.dense_heads import SSDHead

from lightvit_mm.registry import MODELS

__all__ = ['SSDLiteHead']


@MODELS.register_module()
class SSDLiteHead(SSDHead):
    """mmdet's ``SSDHead`` with depthwise convolutions; same other arguments."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(use_depthwise=True, **kwargs)
        self.loss_cls = None
