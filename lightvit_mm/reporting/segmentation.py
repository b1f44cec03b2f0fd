"""Accuracy of a segmentor by image and by class."""

from __future__ import annotations

import numpy as np
import torch


def confusion(truth: np.ndarray, found: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the pixels of each true and predicted class.

    Args:
        truth: (H, W) class numbers; pixels outside 0 to num_classes - 1 are ignored.
        found: (H, W) class numbers.

    Returns:
        (num_classes, num_classes) pixel counts: rows are true, columns predicted classes.
    """
    known = (truth >= 0) & (truth < num_classes)
    pairs = num_classes * truth[known].astype(np.int64) + found[known]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def iou_and_accuracy(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU and accuracy of each class in percent, as mmseg's IoUMetric computes them.

    Args:
        matrix: see `confusion`.

    Returns:
        Two arrays (num_classes,); NaN for a class that has no pixels to divide by.
    """
    from mmseg.evaluation import IoUMetric

    counts = torch.from_numpy(matrix).double()
    shared, found, true = counts.diagonal(), counts.sum(0), counts.sum(1)
    metrics = IoUMetric.total_area_to_metrics(shared, found + true - shared, found, true)
    return 100 * metrics['IoU'], 100 * metrics['Acc']
