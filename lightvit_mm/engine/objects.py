"""The objects of an image, annotated or predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as mask_codec


@dataclass
class Objects:
    """The objects of one image.

    Attributes:
        boxes: (n, 4) corners x1, y1, x2, y2 in pixels.
        labels: (n,) class numbers.
        scores: (n,); 1 for annotated objects.
        crowd: (n,) whether it is a region with any number of objects, which is not evaluated.
        masks: n masks as COCO's run lengths; None without masks.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    crowd: np.ndarray
    masks: list[dict] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, index: np.ndarray) -> Objects:
        """Select some of them by a boolean mask or by indices."""
        numbers = np.arange(len(self))[index]
        masks = None if self.masks is None else [self.masks[i] for i in numbers]
        return Objects(
            self.boxes[index], self.labels[index], self.scores[index], self.crowd[index], masks
        )


def from_instances(instances: Any) -> Objects:
    """Convert an ``InstanceData`` on the CPU, annotated or predicted."""
    boxes = getattr(instances.bboxes, 'tensor', instances.bboxes)
    count = len(boxes)
    masks = None
    if 'masks' in instances:
        bitmaps = instances.masks
        bitmaps = bitmaps.to_ndarray() if hasattr(bitmaps, 'to_ndarray') else np.asarray(bitmaps)
        masks = [mask_codec.encode(np.asfortranarray(bitmap, dtype=np.uint8)) for bitmap in bitmaps]
    scores = instances.scores.numpy() if 'scores' in instances else np.ones(count)
    return Objects(
        np.asarray(boxes, dtype=float).reshape(-1, 4),
        np.asarray(instances.labels, dtype=int),
        np.asarray(scores, dtype=float),
        np.zeros(count, dtype=bool),
        masks,
    )


def from_annotations(instances: Sequence[dict], height: int, width: int) -> Objects:
    """Convert the instances that an mmdet data set lists for an image of that size."""
    masks = None
    if instances and all('mask' in instance for instance in instances):
        masks = [_run_lengths(instance['mask'], height, width) for instance in instances]
    return Objects(
        np.array([instance['bbox'] for instance in instances], dtype=float).reshape(-1, 4),
        np.array([instance['bbox_label'] for instance in instances], dtype=int),
        np.ones(len(instances)),
        np.array([bool(instance.get('ignore_flag')) for instance in instances], dtype=bool),
        masks,
    )


def overlaps(found: Objects, truth: Objects) -> np.ndarray:
    """IoU of every predicted with every annotated object, as in COCO's evaluation.

    Masks are compared if both have them, otherwise boxes. For a crowd it is the share of the
    predicted object that lies inside.

    Returns:
        (found, truth).
    """
    if not len(found) or not len(truth):
        return np.zeros((len(found), len(truth)))
    crowd = truth.crowd.astype(np.uint8)
    if found.masks is not None and truth.masks is not None:
        return mask_codec.iou(found.masks, truth.masks, crowd)
    return mask_codec.iou(_as_xywh(found.boxes), _as_xywh(truth.boxes), crowd)


def _as_xywh(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _run_lengths(mask: Any, height: int, width: int) -> dict:
    """Compress the polygons or run lengths of an annotation."""
    if isinstance(mask, list):
        return mask_codec.merge(mask_codec.frPyObjects(mask, height, width))
    if isinstance(mask['counts'], list):
        return mask_codec.frPyObjects(mask, height, width)
    return mask
