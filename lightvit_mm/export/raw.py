"""Detectors as modules whose graph ends before NMS, for the runtimes that have none.

The graph returns every box and every score, so all its sizes are fixed; choosing among them is
`lightvit_mm.runtimes.detections`, which needs numpy alone.

This module needs mmdet.
"""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.detectors import TwoStageDetector
from torch import Tensor, nn

from lightvit_mm.errors import UserError
from lightvit_mm.export.detections import check_detector, levels_of

__all__ = ['RawDetections', 'raw_detections_of']


class RawDetections(nn.Module):
    """All boxes and scores of RetinaNet, GFL, SSDLite and RTMDet at one size.

    ``forward`` takes one normalised image (1, 3, H, W) and returns boxes (priors, 4) as x1, y1, x2,
    y2 in pixels of the image, and scores (priors, classes) from 0 to 1. The priors of the levels
    follow each other, the finest first.

    Args:
        detector: the mmdet detector, in eval mode.
        size: height and width of the images.

    Attributes:
        choice: what `lightvit_mm.runtimes.detections.choose` needs besides the outputs.
    """

    outputs = ('boxes', 'scores')
    priors: Tensor
    corner: Tensor

    def __init__(self, detector: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.detector = detector
        head, cfg = self._head, self._head.test_cfg
        with torch.no_grad():
            levels = levels_of(head, self._features(torch.zeros(1, 3, *size)))
        # Computed here, since some runtimes lack the operators that make a grid.
        self.register_buffer('priors', torch.cat([priors for _, _, priors in levels]))
        self.register_buffer('corner', torch.tensor([*size[::-1], *size[::-1]]).float())
        self.choice = {
            'levels': [len(priors) for _, _, priors in levels],
            'nms_pre': cfg.nms_pre,
            'score_thr': cfg.get('score_thr', 0),
            'min_bbox_size': cfg.get('min_bbox_size', -1),
            'iou_threshold': cfg.nms.iou_threshold,
            'class_agnostic': cfg.nms.get('class_agnostic', False),
            'max_per_img': cfg.max_per_img,
        }

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute boxes and scores."""
        levels = levels_of(self._head, self._features(x))
        scores = torch.cat([scores for scores, _, _ in levels])
        deltas = torch.cat([deltas for _, deltas, _ in levels])
        coder = self._head.bbox_coder
        boxes = coder.decode(self.priors, deltas)
        return (boxes.clamp(min=0).minimum(self.corner) if coder.clip_border else boxes), scores

    @property
    def _head(self) -> Any:
        return self.detector.bbox_head

    def _features(self, x: Tensor) -> Any:
        detector: Any = self.detector
        return detector.extract_feat(x)


def raw_detections_of(detector: Any, size: tuple[int, int]) -> RawDetections:
    """The form of a detector whose graph ends before NMS.

    Raises:
        UserError: the detector has a second stage, or it or one of its parts is not supported.
    """
    if isinstance(detector, TwoStageDetector):
        raise UserError(
            f'{type(detector).__name__} chooses its regions with NMS inside the network, which '
            'this format cannot do: export it to .onnx or .xml (OpenVINO)'
        )
    check_detector(detector)
    return RawDetections(detector, size)
