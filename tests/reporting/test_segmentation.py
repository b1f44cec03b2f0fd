"""Confusion and IoU of label maps, on a case computed by hand and against mmseg's metric."""

import numpy as np
import torch

from lightvit_mm.reporting.segmentation import confusion, iou_and_accuracy


def test_confusion_iou_and_accuracy():
    truth = np.array([[0, 0, 1, 255]], dtype=np.uint8)
    found = np.array([[0, 1, 1, 0]], dtype=np.uint8)
    matrix = confusion(truth, found, 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    iou, accuracy = iou_and_accuracy(matrix)
    np.testing.assert_allclose(iou, [50, 50, np.nan])
    np.testing.assert_allclose(accuracy, [50, 100, np.nan])


def test_counts_and_figures_are_those_of_mmseg():
    from mmseg.evaluation import IoUMetric

    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 9, (2, 40, 50)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 255
    found[found == 4] = 3
    matrix = confusion(truth, found, 11)
    areas = IoUMetric.intersect_and_union(torch.from_numpy(found), torch.from_numpy(truth), 11, 255)
    shared, union, predicted, true = (area.numpy() for area in areas)
    np.testing.assert_array_equal(matrix.diagonal(), shared)
    np.testing.assert_array_equal(matrix.sum(0), predicted)
    np.testing.assert_array_equal(matrix.sum(1), true)
    iou, accuracy = iou_and_accuracy(matrix)
    metrics = IoUMetric.total_area_to_metrics(*areas)
    np.testing.assert_allclose(iou, 100 * metrics['IoU'], rtol=1e-6)
    np.testing.assert_allclose(accuracy, 100 * metrics['Acc'], rtol=1e-6)
    assert np.isnan(iou[9:]).all() and iou[4] == 0
    np.testing.assert_allclose(iou, 100 * shared / np.where(union, union, np.nan))
