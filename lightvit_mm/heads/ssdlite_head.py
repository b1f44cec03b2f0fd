"""mmdet's SSD head, with a fix for prediction.

mmdet 3.3.0 reads ``loss_cls`` of every head when predicting, which its own SSD head lacks
(https://github.com/open-mmlab/mmdetection/issues/11780).
"""

from typing import Any

from mmdet.models.dense_heads import SSDHead

from lightvit_mm.registry import MODELS

__all__ = ['SSDLiteHead']


@MODELS.register_module()
class SSDLiteHead(SSDHead):
    """mmdet's ``SSDHead`` with depthwise convolutions; otherwise the same arguments."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(use_depthwise=True, **kwargs)
        self.loss_cls = None
