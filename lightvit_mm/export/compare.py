"""Comparing the outputs of an exported file with those of its PyTorch model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from lightvit_mm.errors import UserError

# Of maps in standard deviations; of detections in scores, in mask probabilities, and in corners
# over the longer side of the image.
TOLERANCE = 1e-3
# Of 8-bit files: the score from which a detection counts, and how similar another must be.
CONFIDENT, SAME_OVERLAP, SAME_SCORE = 0.3, 0.5, 0.1

Arrays = Mapping[str, np.ndarray]


class Compared(NamedTuple):
    """A comparison on one image.

    Attributes:
        shape: shape of the input, (N, 3, H, W).
        deviation: the largest deviation, in the units of `TOLERANCE`.
        detections: number of detections in both; None if the outputs are maps.
    """

    shape: tuple[int, ...]
    deviation: float
    detections: int | None = None


class CompareMaps:
    """Compares the outputs of a file with those of the exported module.

    Args:
        module: takes an image (N, 3, H, W) and returns a map or several.
    """

    unit = 'standard deviations of the output'

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, image: np.ndarray, outputs: Arrays) -> Compared:
        """The largest difference, each output in its own standard deviations.

        Raises:
            UserError: an output has another shape than the module's.
        """
        expected = self.module(torch.from_numpy(image))
        expected = expected if isinstance(expected, (tuple, list)) else [expected]
        deviations = []
        for output, value in zip(outputs.values(), expected, strict=True):
            reference = value.numpy()
            if output.shape != reference.shape:
                raise UserError(
                    f'the export turns {image.shape} into {output.shape}, PyTorch into '
                    f'{reference.shape}. Nothing was written; leave --dynamic out if it was given, '
                    'and please report this'
                )
            spread = max(float(reference.std()), 1e-12)
            deviations.append(float(np.abs(output - reference).max()) / spread)
        # Unlike max(), this always returns NaN if there is one.
        return Compared(image.shape, float(np.max(deviations)))

    def agreement(self, image: np.ndarray, outputs: Arrays) -> float:
        """How far an 8-bit file agrees with the module, 1 at best.

        The share of pixels with the same class, or without ``logits`` the lowest correlation of an
        output with the module's.
        """
        expected = self.module(torch.from_numpy(image))
        if 'logits' in outputs:
            return float((outputs['logits'].argmax(1) == expected.argmax(1).numpy()).mean())
        expected = expected if isinstance(expected, (tuple, list)) else [expected]
        pairs = zip(outputs.values(), expected, strict=True)
        return float(
            np.min(
                [np.corrcoef(found.ravel(), value.numpy().ravel())[0, 1] for found, value in pairs]
            )
        )


class CompareDetections:
    """Compares the detections of a file with those of mmdet's own ``predict``.

    Args:
        detector: an mmdet detector.
        normalise: the `Preprocessing` of the exported graph, without a network.
        names: names of the outputs.
    """

    unit = 'in scores, or relative to the longer side of the image'

    def __init__(self, detector: Any, normalise: nn.Module, names: Sequence[str]) -> None:
        self.detector = detector
        self.normalise = normalise
        self.names = names
        two_stages = hasattr(detector, 'roi_head')
        cfg = detector.test_cfg.rcnn if two_stages else detector.test_cfg
        self.limits = Limits(cfg.get('score_thr', 0), cfg.nms.iou_threshold, cfg.max_per_img)

    def __call__(self, image: np.ndarray, outputs: Arrays) -> Compared:
        """The largest difference between corresponding detections, see `compare_detections`."""
        expected = self._expected(torch.from_numpy(image))
        side = max(image.shape[2:])
        return Compared(image.shape, *compare_detections(expected, outputs, side, self.limits))

    def agreement(self, image: np.ndarray, outputs: Arrays) -> float | None:
        """How far an 8-bit file agrees with the detector, see `shared_detections`."""
        return shared_detections(self._expected(torch.from_numpy(image)), outputs)

    def _expected(self, image: torch.Tensor) -> dict[str, np.ndarray]:
        from mmdet.structures import DetDataSample
        from mmdet.structures.bbox import bbox2roi

        size = tuple(image.shape[2:])
        sample = DetDataSample(
            metainfo={'img_shape': size, 'ori_shape': size, 'scale_factor': (1.0, 1.0)}
        )
        detector, x = self.detector, self.normalise(image)
        found = detector.predict(x, [sample], rescale=False)[0].pred_instances
        expected = {'boxes': found.bboxes, 'scores': found.scores, 'labels': found.labels}
        if 'masks' in self.names:
            # Those of predict() are binary and pasted into the image.
            rois = bbox2roi([found.bboxes])
            masks = detector.roi_head._mask_forward(detector.extract_feat(x), rois)['mask_preds']
            classes = torch.zeros_like(found.labels) if masks.shape[1] == 1 else found.labels
            expected['masks'] = masks[torch.arange(len(masks)), classes].sigmoid()
        return {name: value.numpy() for name, value in expected.items()}


class Limits(NamedTuple):
    """The thresholds of a detector: ``score_thr``, NMS's ``iou_threshold``, ``max_per_img``."""

    score: float
    iou: float
    places: int


def compare_detections(
    expected: Arrays, found: Arrays, longer_side: int, limits: Limits, tolerance: float = TOLERANCE
) -> tuple[float, int]:
    """Compare two sets of detections of one image.

    Each detection is paired with the most similar one of its class in the other set. One without a
    partner within the tolerance counts as a difference of 1, unless rounding can explain it: its
    score is at the threshold or that of the last place, or an overlap is at the threshold of NMS.

    Args:
        expected, found: ``boxes`` (n, 4) as x1, y1, x2, y2, ``scores`` (n,), ``labels`` (n,) and
            optionally ``masks`` (n, h, w).
        longer_side: longer side of the image in pixels, by which box differences are divided.
        limits: thresholds of the detector.
        tolerance: largest difference within a pair.

    Returns:
        The largest difference, and the number of pairs.
    """
    parts = [
        np.abs(expected['boxes'][:, None] - found['boxes'][None]).max(2) / longer_side,
        np.abs(expected['scores'][:, None] - found['scores'][None]),
        np.where(expected['labels'][:, None] == found['labels'][None], 0.0, np.inf),
    ]
    # NaN must not be within the tolerance.
    distances = np.nan_to_num(np.max(parts, 0), nan=np.inf)
    taken: dict[int, int] = {}
    deviations = [0.0]
    alone = []
    for i, row in enumerate(distances):
        free = [j for j in range(len(row)) if j not in taken]
        j = min(free, key=row.__getitem__, default=None)
        if j is None or not row[j] <= tolerance:
            alone.append(i)
            continue
        taken[j] = i
        deviations.append(row[j])
        if 'masks' in expected:
            deviations.append(np.abs(expected['masks'][i] - found['masks'][j]).max())
    spare = [j for j in range(len(found['boxes'])) if j not in taken]
    for ours, mine, theirs in ((expected, alone, found), (found, spare, expected)):
        for i in mine:
            if not _undecided(ours, i, theirs, limits, tolerance):
                deviations.append(1.0)
    # Unlike max(), this always returns NaN if a mask has one.
    return float(np.max(deviations)), len(taken)


def shared_detections(expected: Arrays, found: Arrays) -> float | None:
    """The share of the confident detections of two sets that the other set has too.

    Confident are scores of at least 0.3; the other's detection must have the same class, an overlap
    of at least 0.5 and a score within 0.1.

    Args:
        expected, found: see `compare_detections`.

    Returns:
        The share of both sets together, None if no detection is confident.
    """
    from mmdet.evaluation import bbox_overlaps

    same = bbox_overlaps(expected['boxes'], found['boxes']) >= SAME_OVERLAP
    same &= expected['labels'][:, None] == found['labels'][None]
    same &= np.abs(expected['scores'][:, None] - found['scores'][None]) <= SAME_SCORE
    ours, theirs = (kept['scores'] >= CONFIDENT for kept in (expected, found))
    if not ours.any() and not theirs.any():
        return None
    return float(np.mean([*same.any(1)[ours], *same.any(0)[theirs]]))


def _undecided(ours: Arrays, i: int, theirs: Arrays, limits: Limits, tolerance: float) -> bool:
    """Whether rounding can explain that the other set lacks this detection."""
    score = ours['scores'][i]
    if score <= limits.score + tolerance:
        return True
    if len(theirs['scores']) >= limits.places and score <= theirs['scores'].min() + tolerance:
        return True
    from mmdet.evaluation import bbox_overlaps

    rivals = theirs['boxes'][theirs['labels'] == ours['labels'][i]]
    overlaps = bbox_overlaps(ours['boxes'][i : i + 1], rivals)
    return bool((np.abs(overlaps - limits.iou) <= tolerance).any())
