"""Choosing detections in numpy; whole detectors are in tests/export/test_detections.py."""

import numpy as np
import pytest
import torch

from lightvit_mm.runtimes.detections import choose, suppress

CHOICE = {
    'levels': [3, 2],
    'nms_pre': 100,
    'score_thr': 0.1,
    'min_bbox_size': -1,
    'iou_threshold': 0.5,
    'class_agnostic': False,
    'max_per_img': 100,
}
# The second overlaps the first, the fourth is empty.
BOXES = np.array(
    [[0, 0, 10, 10], [1, 0, 10, 10], [20, 0, 30, 10], [5, 5, 5, 9], [40, 0, 50, 10]], 'float32'
)
SCORES = np.array([[0.9, 0.1], [0.8, 0.7], [0.2, 0.1], [0.6, 0.0], [0.0, 0.5]], 'float32')


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({}, [(0, 0), (1, 1), (3, 0), (4, 1), (2, 0)]),
        ({'class_agnostic': True}, [(0, 0), (3, 0), (4, 1), (2, 0)]),
        ({'iou_threshold': 0.95}, [(0, 0), (1, 0), (1, 1), (3, 0), (4, 1), (2, 0)]),
        ({'min_bbox_size': 0}, [(0, 0), (1, 1), (4, 1), (2, 0)]),
        ({'score_thr': 0.55}, [(0, 0), (1, 1), (3, 0)]),
        ({'nms_pre': 1}, [(0, 0), (3, 0)]),
        ({'max_per_img': 2}, [(0, 0), (1, 1)]),
        ({'score_thr': 1.0}, []),
        ({'score_thr': 1.0, 'class_agnostic': True}, []),
    ],
)
def test_choice(changes, expected):
    found = choose(BOXES, SCORES, CHOICE | changes)
    rows, labels = np.array(expected, int).reshape(-1, 2).T
    assert found['labels'].tolist() == labels.tolist()
    np.testing.assert_array_equal(found['boxes'], BOXES[rows])
    np.testing.assert_array_equal(found['scores'], SCORES[rows, labels])
    assert found['boxes'].shape == (len(rows), 4)


@pytest.mark.parametrize('threshold', [0.3, 0.65])
def test_suppresses_what_mmcv_suppresses(threshold):
    nms = pytest.importorskip('mmcv.ops').nms
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 20, (500, 2))
    boxes = np.hstack([corners, corners + rng.uniform(10, 40, (500, 2))]).astype('float32')
    _, expected = nms(torch.from_numpy(boxes), torch.linspace(1, 0.5, 500), threshold)
    kept = suppress(boxes, threshold, 500)
    assert 10 < len(kept) < 400
    assert kept.tolist() == expected.tolist()
    assert suppress(boxes, threshold, 7).tolist() == expected[:7].tolist()
