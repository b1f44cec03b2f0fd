"""NMS and RoIAlign as operators that torch.export can trace and ONNX has.

mmcv's own are C++ functions, which cannot be traced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ['nms', 'roi_align', 'translations']


@torch.library.custom_op('lightvit_mm::nms', mutates_args=())
def nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    iou_threshold: float,
    score_threshold: float,
    max_boxes: int,
) -> torch.Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (n, 4), two opposite corners each.
        scores: (n,).
        iou_threshold: a box that overlaps a better one by more is dropped.
        score_threshold: only boxes with higher scores are considered.
        max_boxes: most boxes to keep.

    Returns:
        Indices (k,) of the boxes that are kept, best first.
    """
    from mmcv.ops import nms as mmcv_nms

    above = (scores > score_threshold).nonzero().squeeze(1)
    _, keep = mmcv_nms(boxes[above], scores[above], iou_threshold)
    return above[keep[:max_boxes]]


@nms.register_fake
def _(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    iou_threshold: float,
    score_threshold: float,
    max_boxes: int,
) -> torch.Tensor:
    kept = torch.library.get_ctx().new_dynamic_size(max=max_boxes)
    return boxes.new_empty(kept, dtype=torch.int64)


@torch.library.custom_op('lightvit_mm::roi_align', mutates_args=())
def roi_align(
    features: torch.Tensor,
    rois: torch.Tensor,
    height: int,
    width: int,
    scale: float,
    sampling_ratio: int,
) -> torch.Tensor:
    """Average bilinear samples in each cell of each region.

    Args:
        features: (N, C, H, W).
        rois: (k, 5): index of the image, then x1, y1, x2, y2 in pixels of the input.
        height, width: number of cells of a region.
        scale: size of the features over that of the input.
        sampling_ratio: samples along each side of a cell; 0 for one per pixel of the features.

    Returns:
        (k, C, height, width).
    """
    from mmcv.ops import roi_align as mmcv_roi_align

    return mmcv_roi_align(features, rois, (height, width), scale, sampling_ratio, 'avg', True)


@roi_align.register_fake
def _(
    features: torch.Tensor,
    rois: torch.Tensor,
    height: int,
    width: int,
    scale: float,
    sampling_ratio: int,
) -> torch.Tensor:
    return features.new_empty(rois.shape[0], features.shape[1], height, width)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """ONNX forms of operators, for ``torch.onnx.export(custom_translation_table=...)``."""
    from onnxscript import opset18

    # It accepts plain numbers, but its annotations don't.
    op: Any = opset18

    def onnx_nms(
        boxes: Any, scores: Any, iou_threshold: float, score_threshold: float, max_boxes: int
    ) -> Any:
        kept = op.NonMaxSuppression(
            op.Unsqueeze(boxes, [0]),
            op.Unsqueeze(scores, [0, 1]),
            max_boxes,
            iou_threshold,
            score_threshold,
        )
        # Each row is image, class and box.
        return op.Squeeze(op.Slice(kept, [2], [3], [1]), [1])

    def onnx_roi_align(
        features: Any, rois: Any, height: int, width: int, scale: float, sampling_ratio: int
    ) -> Any:
        return op.RoiAlign(
            features,
            op.Slice(rois, [1], [5], [1]),
            op.Cast(op.Squeeze(op.Slice(rois, [0], [1], [1]), [1]), to=7),
            coordinate_transformation_mode='half_pixel',
            output_height=height,
            output_width=width,
            sampling_ratio=sampling_ratio,
            spatial_scale=scale,
        )

    ours = torch.ops.lightvit_mm
    return {ours.nms.default: onnx_nms, ours.roi_align.default: onnx_roi_align}
