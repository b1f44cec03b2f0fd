"""Confusion and IoU of label maps, on a case done by hand."""

import numpy as np

from lightvit_mm.reporting import segmentation


def test_confusion_iou_and_accuracy():
    truth = np.array([[0, 0, 1, 255]], dtype=np.uint8)
    found = np.array([[0, 1, 1, 0]], dtype=np.uint8)
    matrix = segmentation.confusion(truth, found, 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(segmentation.class_iou(matrix), [50, 50, np.nan])
    np.testing.assert_allclose(segmentation.class_accuracy(matrix), [50, 100, np.nan])
