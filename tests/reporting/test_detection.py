"""Counts and figures of a detector, on cases computed by hand."""

import numpy as np
import pytest
from pycocotools import mask as mask_codec

from lightvit_mm.engine.objects import Objects, from_annotations, overlaps
from lightvit_mm.reporting import detection
from lightvit_mm.reporting.detection import IN_CROWD, NOTHING, Image

A, B, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 60, 60]
NEAR_A = [0, 0, 10, 8]  # IoU 0.8
BARELY_A = [0, 0, 10, 5]  # IoU 0.5


def objects(boxes, labels, scores=None, crowd=None, masks=None):
    count = len(labels)
    return Objects(
        np.array(boxes, dtype=float).reshape(-1, 4),
        np.array(labels, dtype=int),
        np.ones(count) if scores is None else np.array(scores),
        np.array(crowd if crowd else [False] * count, dtype=bool),
        masks,
    )


def image(found, truth):
    return Image('a.png', 1, truth, found, detection.match(found, truth, by_class=True))


def test_surer_detection_takes_the_object():
    found = objects([NEAR_A, A, B], [0, 0, 0], [0.9, 0.8, 0.7])
    truth = objects([A, B], [0, 0])
    assert detection.match(found, truth, by_class=True).tolist() == [0, NOTHING, 1]


def test_detection_takes_the_object_it_overlaps_most_with():
    found = objects([NEAR_A], [0], [0.9])
    truth = objects([BARELY_A, NEAR_A], [0, 0])
    assert detection.match(found, truth, by_class=True).tolist() == [1]


@pytest.mark.parametrize(('box', 'expected'), [(BARELY_A, 0), ([0, 0, 10, 4.9], NOTHING)])
def test_iou_of_a_half_is_enough(box, expected):
    found, truth = objects([box], [0], [0.9]), objects([A], [0])
    assert detection.match(found, truth, by_class=True).tolist() == [expected]


def test_class_matters_where_asked():
    found, truth = objects([A], [1], [0.9]), objects([A], [0])
    assert detection.match(found, truth, by_class=True).tolist() == [NOTHING]
    assert detection.match(found, truth, by_class=False).tolist() == [0]


def test_crowd_counts_neither_way():
    found = objects([A, NEAR_A, FAR], [0, 0, 0], [0.9, 0.8, 0.7])
    truth = objects([[0, 0, 40, 40]], [0], crowd=[True])
    assert detection.match(found, truth, by_class=True).tolist() == [IN_CROWD, IN_CROWD, NOTHING]
    count = detection.count(image(found, truth), 0)
    assert (count.right, count.wrong, count.missed) == (0, 1, 0)
    assert detection.confusion([image(found, truth)], 1, 0).tolist() == [[0, 0], [1, 0]]


def test_best_score_has_the_highest_f1():
    # F1 by decreasing threshold: 2/4, 2/5, 4/6, 4/7.
    found = objects([A, FAR, B, FAR], [0, 0, 0, 0], [0.9, 0.6, 0.4, 0.2])
    assert detection.best_score([image(found, objects([A, B, [80, 0, 99, 9]], [0, 0, 0]))]) == 0.4


def test_score_where_nothing_is_right():
    assert detection.best_score([image(objects([FAR], [0], [0.9]), objects([A], [0]))]) == 0.3
    assert detection.best_score([image(objects([], []), objects([A], [0]))]) == 0.3


def test_counts_and_f1():
    found = objects([A, FAR], [0, 0], [0.9, 0.6])
    whole = image(found, objects([A, B], [0, 0]))
    assert detection.count(whole, 0.5) == detection.Count(1, 1, 1)
    assert detection.count(whole, 0.5).f1 == 0.5
    assert detection.count(whole, 0.7) == detection.Count(1, 0, 1)
    assert detection.count(image(objects([], []), objects([], [])), 0).f1 is None


def test_confusion_with_background():
    found = objects([A, FAR, B], [1, 0, 1], [0.9, 0.8, 0.1])
    truth = objects([A, B], [0, 1])
    # A is taken for class 1, B missed at this score, FAR found without an object.
    assert detection.confusion([image(found, truth)], 2, 0.5).tolist() == [
        [0, 1, 0],
        [0, 0, 1],
        [1, 0, 0],
    ]


def rle(rows, columns):
    bitmap = np.zeros((20, 20), dtype=np.uint8)
    bitmap[rows, columns] = 1
    return mask_codec.encode(np.asfortranarray(bitmap))


def test_masks_are_compared_where_there_are_some():
    found = objects([A], [0], masks=[rle(slice(0, 5), slice(0, 10))])
    truth = objects([A], [0], masks=[rle(slice(0, 10), slice(0, 10))])
    assert overlaps(found, truth).tolist() == [[0.5]]
    truth.masks = None
    assert overlaps(found, truth).tolist() == [[1.0]]


@pytest.mark.parametrize(
    'mask',
    [
        [[0, 0, 10, 0, 10, 10, 0, 10]],
        {'size': [20, 20], 'counts': [0] + [10, 10] * 9 + [10, 210]},
        rle(slice(0, 10), slice(0, 10)),
    ],
    ids=['polygon', 'counts', 'compressed'],
)
def test_every_form_of_mask_is_read(mask):
    truth = from_annotations([{'bbox': A, 'bbox_label': 0, 'mask': mask}], 20, 20)
    assert mask_codec.decode(truth.masks[0]).sum() == 100


class Data:
    """The part of mmdet's CocoDataset that `average_precision` uses."""

    cat_ids = [1, 2, 3, 4]

    def __init__(self, root):
        self.ann_file = str(root / 'annotations/instances_val.json')


def test_average_precision_by_class_and_size(small_coco):
    # Each image has a box of each of the four classes, 32 x 24 px, which COCO counts as small.
    boxes = [[8 * label, 0, 8 * label + 32, 24] for label in range(4)]
    truth = objects(boxes, [0, 1, 2, 3])
    # Class 0 is found in both images, class 1 in one, class 2 never, class 3 in the wrong place.
    found = [objects([*boxes[:2], boxes[0]], [0, 1, 3]), objects([boxes[0]] * 2, [0, 3])]
    images = [
        Image('x.png', number, truth, f, detection.match(f, truth, True))
        for number, f in enumerate(found, 1)
    ]
    precision = detection.average_precision(images, Data(small_coco), 'bbox', (1, 10, 100))
    half = 100 * 51 / 101  # recalls up to a half are reached, 51 of 101
    expected = [[100, 100, 100], [half] * 3, [0] * 3, [0] * 3]
    np.testing.assert_allclose(precision[:, :3], expected)
    assert np.isnan(precision[:, 3:]).all()
    for image in images:
        image.found = objects([], [])
    precision = detection.average_precision(images, Data(small_coco), 'bbox', (1, 10, 100))
    assert (precision[:, :3] == 0).all() and np.isnan(precision[:, 3:]).all()
