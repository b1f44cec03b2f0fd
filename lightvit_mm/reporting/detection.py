"""Accuracy of a detector by image and by class."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightvit_mm.engine.objects import Objects, overlaps

IOU = 0.5
# Default threshold of tools/predict.py, used here where all thresholds are equally good.
USUAL_SCORE = 0.3
# Values of `match` for a detection that found no object, and for one inside a crowd.
NOTHING, IN_CROWD = -1, -2
SIZES = ('all', 'small', 'medium', 'large')


@dataclass
class Image:
    """An image of the validation set.

    Attributes:
        path: its file.
        identity: its id in the annotation file.
        truth, found: annotated and predicted objects.
        matches: (found,) result of `match`.
    """

    path: str
    identity: int
    truth: Objects
    found: Objects
    matches: np.ndarray


@dataclass(frozen=True)
class Count:
    """Numbers of an image at a score threshold.

    Attributes:
        right: detections that found an object of their class.
        wrong: other detections, except those in crowds.
        missed: objects that were not found.
    """

    right: int
    wrong: int
    missed: int

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None without objects and detections."""
        total = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / total if total else None


def match(found: Objects, truth: Objects, by_class: bool) -> np.ndarray:
    """Match detections with objects.

    In order of decreasing scores, each detection takes the object with the largest IoU, out of
    those with an IoU of at least `IOU` that are still free.

    Args:
        found: the detections.
        truth: the annotated objects.
        by_class: match only objects of the same class.

    Returns:
        (found,) indices of objects, `NOTHING` or `IN_CROWD`.
    """
    iou = overlaps(found, truth)
    allowed = iou >= IOU
    if by_class:
        allowed &= found.labels[:, None] == truth.labels
    matches = np.full(len(found), NOTHING)
    free = ~truth.crowd
    for number in np.argsort(-found.scores, kind='stable'):
        candidates = np.flatnonzero(allowed[number] & free)
        if len(candidates):
            best = candidates[iou[number, candidates].argmax()]
            matches[number], free[best] = best, False
        elif (allowed[number] & truth.crowd).any():
            matches[number] = IN_CROWD
    return matches


def best_score(images: Sequence[Image]) -> float:
    """The score threshold with the highest F1 over all images; `USUAL_SCORE` if all have 0."""
    counted = [image.matches != IN_CROWD for image in images]
    scores = np.concatenate([i.found.scores[c] for i, c in zip(images, counted, strict=True)])
    right = np.concatenate([i.matches[c] >= 0 for i, c in zip(images, counted, strict=True)])
    if not right.any():
        return USUAL_SCORE
    order = np.argsort(-scores, kind='stable')
    objects = sum(int((~image.truth.crowd).sum()) for image in images)
    f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + objects)
    return float(scores[order][f1.argmax()])


def count(image: Image, score: float) -> Count:
    """Count the detections of an image with at least that score, and the objects they miss."""
    matches = image.matches[image.found.scores >= score]
    right = int((matches >= 0).sum())
    objects = int((~image.truth.crowd).sum())
    return Count(right, int((matches == NOTHING).sum()), objects - right)


def confusion(images: Sequence[Image], num_classes: int, score: float) -> np.ndarray:
    """Confusion matrix of the detections with at least that score.

    Returns:
        (num_classes + 1, num_classes + 1) counts: rows are true, columns predicted classes. The
        last row counts detections that found no object, the last column objects that were missed.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=int)
    for image in images:
        found = image.found.chosen(image.found.scores >= score)
        matches = match(found, image.truth, by_class=False)
        hits = matches >= 0
        np.add.at(matrix, (image.truth.labels[matches[hits]], found.labels[hits]), 1)
        np.add.at(matrix, (num_classes, found.labels[matches == NOTHING]), 1)
        missed = ~image.truth.crowd
        missed[matches[hits]] = False
        np.add.at(matrix, (image.truth.labels[missed], num_classes), 1)
    return matrix


def average_precision(
    images: Sequence[Image], dataset: Any, kind: str, max_detections: Sequence[int]
) -> np.ndarray:
    """COCO's average precision by class and size, computed by pycocotools.

    Args:
        images: the images to evaluate.
        dataset: the mmdet ``CocoDataset`` that they belong to.
        kind: ``'bbox'`` or ``'segm'``.
        max_detections: ``proposal_nums`` of mmdet's CocoMetric; the last is used.

    Returns:
        (classes, 1 + len(SIZES)) in percent: AP50, then AP of each size. NaN where there is no
        object of that class and size.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = []
    for image in images:
        found = image.found
        corners = found.boxes.tolist()
        for number, (x1, y1, x2, y2) in enumerate(corners):
            entry = {
                'image_id': image.identity,
                'category_id': dataset.cat_ids[found.labels[number]],
                'score': float(found.scores[number]),
            }
            if kind == 'bbox':
                entry['bbox'] = [x1, y1, x2 - x1, y2 - y1]
            else:
                assert found.masks is not None
                entry['segmentation'] = found.masks[number]
            results.append(entry)
    with redirect_stdout(io.StringIO()):
        # loadRes fails on an empty list.
        truth = COCO(dataset.ann_file)
        detections = truth.loadRes(results) if results else COCO()
        evaluation = COCOeval(truth, detections, kind)
        evaluation.params.imgIds = [image.identity for image in images]
        evaluation.params.catIds = dataset.cat_ids
        evaluation.params.maxDets = list(max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
    # (IoU threshold, recall, class, size, number of detections); -1 where there are no objects.
    precision = evaluation.eval['precision'][..., -1]
    precision = np.where(precision < 0, np.nan, 100 * precision)
    half = evaluation.params.iouThrs.round(2).tolist().index(IOU)
    return np.column_stack([precision[half, ..., 0].mean(0), precision.mean((0, 1))])
