"""Choosing among all boxes and scores of a detector, in numpy.

For runtimes whose graphs end before NMS; the result is what mmdet's ``predict`` returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ['choose', 'suppress']


def choose(
    boxes: np.ndarray, scores: np.ndarray, choice: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Choose the detections of one image.

    Args:
        boxes: (priors, 4), two opposite corners each.
        scores: (priors, classes).
        choice: ``levels``, the number of priors of each level, of which each contributes its best
            ``nms_pre`` pairs of prior and class with scores above ``score_thr``; both sides must
            exceed ``min_bbox_size`` if that is not negative; then NMS with ``iou_threshold``,
            within each class unless ``class_agnostic``, and the best ``max_per_img``.

    Returns:
        ``boxes`` (n, 4), ``scores`` (n,) and ``labels`` (n,), best first.
    """
    rows, labels = [], []
    start = 0
    for count in choice['levels']:
        level = scores[start : start + count]
        pairs = np.flatnonzero(level > choice['score_thr'])
        best = pairs[np.argsort(-level.ravel()[pairs], kind='stable')[: choice['nms_pre']]]
        rows.append(start + best // level.shape[1])
        labels.append(best % level.shape[1])
        start += count
    row, label = np.concatenate(rows), np.concatenate(labels)
    if choice['min_bbox_size'] >= 0:
        wide = (boxes[row, 2:] - boxes[row, :2] > choice['min_bbox_size']).all(1)
        row, label = row[wide], label[wide]
    order = np.argsort(-scores[row, label], kind='stable')
    row, label = row[order], label[order]
    candidates = boxes[row]
    if not choice['class_agnostic'] and len(row):
        # Shifted apart, boxes of different classes never overlap. mmcv does the same, so overlaps
        # are rounded equally.
        candidates = candidates + (label * (candidates.max() + 1))[:, None].astype(boxes.dtype)
    keep = suppress(candidates, choice['iou_threshold'], choice['max_per_img'])
    row, label = row[keep], label[keep]
    return {'boxes': boxes[row], 'scores': scores[row, label], 'labels': label}


def suppress(boxes: np.ndarray, iou_threshold: float, max_boxes: int) -> np.ndarray:
    """Greedy non-maximum suppression.

    Args:
        boxes: (n, 4), the best first.
        iou_threshold: a box that overlaps a better one by more is dropped.
        max_boxes: most boxes to keep.

    Returns:
        Indices of the boxes that are kept.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    left = np.arange(len(boxes))
    keep: list[int] = []
    while len(left) and len(keep) < max_boxes:
        best, left = left[0], left[1:]
        keep.append(best)
        low = np.maximum(boxes[best, :2], boxes[left, :2])
        high = np.minimum(boxes[best, 2:], boxes[left, 2:])
        shared = np.maximum(high - low, 0).prod(1)
        # Written without a division, since two boxes can both be empty.
        left = left[shared <= iou_threshold * (areas[best] + areas[left] - shared)]
    return np.array(keep, 'int64')
