"""How well a segmentor does, image by image and class by class."""

from __future__ import annotations

import numpy as np


def confusion(truth: np.ndarray, found: np.ndarray, num_classes: int) -> np.ndarray:
    """What pixels of each class were taken for.

    Args:
        truth: (H, W) numbers of classes; those outside 0 … num_classes - 1 are ignored.
        found: (H, W) numbers of classes.

    Returns:
        (num_classes, num_classes) numbers of pixels: rows are true, columns predicted classes.
    """
    known = (truth >= 0) & (truth < num_classes)
    pairs = num_classes * truth[known].astype(np.int64) + found[known]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """IoU of each class in percent; not a number where it neither is nor was predicted."""
    with np.errstate(invalid='ignore'):
        shared = matrix.diagonal()
        return 100 * shared / (matrix.sum(0) + matrix.sum(1) - shared)


def class_accuracy(matrix: np.ndarray) -> np.ndarray:
    """The share of each class's pixels that were found, in percent."""
    with np.errstate(invalid='ignore'):
        return 100 * matrix.diagonal() / matrix.sum(1)
