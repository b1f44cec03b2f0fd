"""How well a detector does, image by image and class by class."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightvit_mm.reporting.objects import Objects, overlaps

IOU = 0.5
# A score below which predict.py draws nothing; here where no score is better than another.
USUAL_SCORE = 0.3
# What `match` says of a detection that found no object, and of one inside a crowd.
NOTHING, IN_CROWD = -1, -2
SIZES = ('all', 'small', 'medium', 'large')


@dataclass
class Image:
    """An image of the validation set.

    Attributes:
        path: its file.
        identity: its number in the annotation file.
        truth, found: its objects, and what the model says of them.
        matches: for each of ``found``, see `match`.
    """

    path: str
    identity: int
    truth: Objects
    found: Objects
    matches: np.ndarray


@dataclass(frozen=True)
class Count:
    """What was found in an image at a score threshold.

    Attributes:
        right: detections that found an object of their class.
        wrong: the others, but for those in crowds.
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
    """Which object each detection finds.

    From the highest score on, each takes the object that it overlaps most with, of those with an
    IoU of at least `IOU` that no other has taken.

    Args:
        by_class: take objects of the same class only.

    Returns:
        (found,) numbers of objects, `NOTHING` or `IN_CROWD`.
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
    """Count what an image's detections of at least that score found."""
    matches = image.matches[image.found.scores >= score]
    right = int((matches >= 0).sum())
    objects = int((~image.truth.crowd).sum())
    return Count(right, int((matches == NOTHING).sum()), objects - right)


def confusion(images: Sequence[Image], num_classes: int, score: float) -> np.ndarray:
    """What objects of each class were taken for, by detections of at least that score.

    Returns:
        (num_classes + 1, num_classes + 1) numbers of objects: rows are true, columns predicted
        classes; the last row has detections of nothing, the last column objects that were missed.
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
    """COCO's average precision by class and size, out of pycocotools.

    Args:
        images: of ``dataset``, an mmdet ``CocoDataset``.
        kind: ``'bbox'`` or ``'segm'``.
        max_detections: ``proposal_nums`` of mmdet's CocoMetric; the last counts.

    Returns:
        (classes, 1 + `SIZES`) in percent: AP50 and then AP of each size; not a number where there
        is no object of that class and size.
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
