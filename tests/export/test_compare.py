"""Deviations of an exported file."""

import numpy as np
import pytest
from torch import nn

pytest.importorskip('mmdet')

from lightvit_mm.errors import UserError
from lightvit_mm.export.compare import (
    CompareMaps,
    Limits,
    compare_detections,
    shared_detections,
)

LIMITS = Limits(score=0.05, iou=0.5, places=100)


def detections(*rows):
    """Make detections from rows of x1, y1, x2, y2, score, label."""
    rows = np.array(rows, 'float32').reshape(-1, 6)
    return {'boxes': rows[:, :4], 'scores': rows[:, 4], 'labels': rows[:, 5].astype(int)}


A = (0, 0, 10, 10, 0.9, 1)
B = (50, 50, 90, 90, 0.8, 0)


def compare(expected, found, limits=LIMITS):
    return compare_detections(detections(*expected), detections(*found), 100, limits)[0]


def test_maps_in_standard_deviations():
    class Twice(nn.Module):
        def forward(self, x):
            return x, x * 100

    image = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype('float32')
    compared = CompareMaps(Twice())(image, {'a': image + 0.5, 'b': image * 100})
    assert compared.deviation == pytest.approx(0.5 / image.std(), rel=1e-4)
    outputs = {'a': image * np.nan, 'b': image * 100}
    assert np.isnan(CompareMaps(Twice())(image, outputs).deviation)
    with pytest.raises(UserError, match=r'turns \(1, 3, 8, 8\) into \(1, 3, 8, 7\)'):
        CompareMaps(nn.Identity())(image, {'a': image[..., 1:]})


def test_order_does_not_count_and_differences_do():
    assert compare([A, B], [B, A]) == 0
    moved = (0, 0, 10.05, 10, 0.9, 1)
    assert compare([A, B], [moved, B]) == pytest.approx(0.05 / 100, rel=1e-3)
    surer = (0, 0, 10, 10, 0.9003, 1)
    assert compare([A, B], [surer, B]) == pytest.approx(0.0003, rel=1e-3)


@pytest.mark.parametrize(
    'found',
    [[B], [A, B, (20, 20, 40, 40, 0.7, 0)], [(*A[:5], 0), B], [(0, 0, 12, 10, 0.9, 1), B]],
    ids=['missing', 'surplus', 'other class', 'elsewhere'],
)
def test_a_detection_without_a_partner_counts(found):
    assert compare([A, B], found) == 1
    assert compare(found, [A, B]) == 1


def test_nan_counts():
    assert compare([A], [(np.nan, 0, 10, 10, 0.9, 1)]) == 1
    assert compare([A], [(*A[:4], np.nan, 1)]) == 1


def test_pairs_are_counted():
    assert compare_detections(detections(A, B), detections(B, A), 100, LIMITS) == (0, 2)
    # Nothing in common, but all explained by rounding: no pairs.
    barely = detections((0, 0, 9, 9, 0.0501, 1)), detections((50, 0, 59, 9, 0.0502, 1))
    assert compare_detections(*barely, 100, LIMITS) == (0, 0)


def test_what_rounding_may_turn():
    barely = (20, 20, 40, 40, 0.0504, 0)
    assert compare([A, barely], [A]) == 0
    # At the last of two places.
    limits = LIMITS._replace(places=2)
    rival = (20, 20, 40, 40, 0.8004, 0)
    assert compare([A, B], [A, rival], limits) == 0
    assert compare([A, B], [A, rival]) == 1
    # An IoU of a half, and slightly less.
    half = (0, 0, 10, 20, 0.5, 1)
    assert compare([A, half], [A]) == 0
    assert compare([A, (0, 0, 10, 20.1, 0.5, 1)], [A]) == 1


def test_masks_count():
    expected, found = detections(A), detections(A)
    expected['masks'] = np.zeros((1, 2, 2))
    found['masks'] = np.full((1, 2, 2), 0.25)
    assert compare_detections(expected, found, 100, LIMITS) == (0.25, 1)
    found['masks'][:] = np.nan
    assert np.isnan(compare_detections(expected, found, 100, LIMITS)[0])


@pytest.mark.parametrize(
    ('found', 'share'),
    [
        ([B, A], 1),
        ([(0, 0, 10, 14, 0.85, 1), B], 1),
        ([A], 2 / 3),
        ([(*A[:5], 0), B], 1 / 2),
        ([(0, 0, 10, 21, 0.9, 1), B], 1 / 2),
        ([(*A[:4], 0.79, 1), B], 1 / 2),
        ([A, B, (0, 0, 9, 9, 0.29, 0)], 1),
        ([], 0),
    ],
    ids=['order', 'similar', 'missing', 'class', 'overlap', 'score', 'unsure', 'none'],
)
def test_shared_detections(found, share):
    assert shared_detections(detections(A, B), detections(*found)) == pytest.approx(share)
    assert shared_detections(detections(*found), detections(A, B)) == pytest.approx(share)


def test_nothing_to_share():
    unsure = detections((*A[:4], 0.2, 1))
    assert shared_detections(unsure, unsure) is None
    assert shared_detections(detections(), detections()) is None


def test_agreement_of_maps():
    image = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype('float32')
    compare = CompareMaps(nn.Identity())
    assert compare.agreement(image, {'level0': 2 * image + 1}) == pytest.approx(1)
    assert compare.agreement(image, {'level0': -image}) == pytest.approx(-1)
    changed = image.copy()
    changed[:, :, :2] = 0  # where the first class wins
    same = (changed.argmax(1) == image.argmax(1)).mean()
    assert 0.75 < same < 1
    assert compare.agreement(image, {'logits': changed}) == pytest.approx(same)
