"""The part of a report that needs predictions: results by class, confusion, pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np
from PIL import Image

from lightvit_mm.engine.drawing import draw_labels, draw_name, draw_objects
from lightvit_mm.reporting import charts, detection
from lightvit_mm.reporting.segmentation import iou_and_accuracy
from lightvit_mm.reporting.validating import (
    SHOWN,
    Choice,
    Choices,
    Detections,
    LabelMap,
    Segments,
    half_of,
)

PICTURE_SIDE = 360  # pixels, longer side
CONFUSIONS = 12  # most rows in the table of confusions


@dataclass
class Table:
    """A table of the page.

    Attributes:
        caption: its caption.
        head: names of the columns.
        rows: cells of each row; the first is the name of the row.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Pair:
    """An image drawn twice: with the ground truth, and with the prediction.

    Attributes:
        name: name of its file.
        measure: the measure by which it is ranked, as text.
        truth, found: the two pictures as data URLs.
    """

    name: str
    measure: str
    truth: str
    found: str


@dataclass
class Findings:
    """The contents of this part of the report.

    Attributes:
        tables: results by class.
        number: number of images in the validation set.
        matrix: the confusion matrix as a data URL.
        matrix_fits: whether it fits on a phone without scrolling.
        matrix_note: how the matrix was counted.
        confusions: table of the most frequent confusions.
        ranking: how images are ranked.
        best, worst: the images with the highest and lowest ranks.
    """

    tables: list[Table]
    number: int
    matrix: str
    matrix_fits: bool
    matrix_note: str
    confusions: Table
    ranking: str
    best: list[Pair]
    worst: list[Pair]


def of_detector(validated: Detections) -> Findings:
    """Summarise a detector's predictions on the validation set."""
    classes, colours, score = validated.classes, validated.colours, validated.score
    number = np.zeros(len(classes), dtype=int)
    for image in validated.images:
        np.add.at(number, image.truth.labels[~image.truth.crowd], 1)
    tables = []
    for kind, precision in validated.precision.items():
        mean = np.ma.masked_invalid(precision).mean(0).filled(np.nan)
        rows = [
            [name, f'{count:,}', *map(percent, values)]
            for name, count, values in (
                ('all', number.sum(), mean),
                *zip(classes, number, precision, strict=True),
            )
        ]
        what = 'boxes' if kind == 'bbox' else 'masks'
        head = ['class', 'objects', 'AP50', 'AP', 'AP small', 'AP medium', 'AP large']
        tables.append(Table(f"COCO's AP of {what} by class and size, in percent", head, rows))

    counted = [(image, detection.count(image, score)) for image in validated.images]
    ranked = [(image, count, f1) for image, count in counted if (f1 := count.f1) is not None]
    # Of equally good or bad images, those with more objects or errors come first.
    best = sorted(ranked, key=lambda item: (-item[2], -item[1].right))
    worst = sorted(ranked, key=lambda item: (item[2], -item[1].missed - item[1].wrong))

    def pair(image: detection.Image, count: detection.Count, f1: float) -> Pair:
        rgb = mmcv.imread(image.path, channel_order='rgb')
        found = image.found.chosen(image.found.scores >= score)
        return Pair(
            Path(image.path).name,
            f'F1 {f1:.2f}: {count.right} right, {count.wrong} wrong, {count.missed} missed',
            _jpeg(draw_objects(rgb, image.truth, classes, colours, PICTURE_SIDE)),
            _jpeg(draw_objects(rgb, found, classes, colours, PICTURE_SIDE, with_scores=True)),
        )

    what = 'masks' if 'segm' in validated.precision else 'boxes'
    half = half_of(len(ranked))
    matrix, confusions = _confusion(validated.confusion, [*classes, 'background'], 'objects')
    return Findings(
        tables,
        len(validated.images),
        matrix,
        len(classes) <= charts.MOST_NUMBERS,
        f'Objects, by detections with a score of at least {score:.2f}. In order of decreasing '
        'scores, each detection takes the free object with the largest IoU of at least '
        f'{detection.IOU}, whatever its class. The background column counts objects that were '
        'missed, the background row detections without an object.',
        confusions,
        f'Ranked by F1 of {what} of the right class, at an IoU of at least {detection.IOU} and a '
        f'score of at least {score:.2f}, the threshold with the highest F1 over the whole set.'
        + _left_out(len(counted) - len(ranked), 'objects or detections'),
        [pair(*item) for item in best[:half]],
        [pair(*item) for item in worst[: min(SHOWN, len(ranked) - half)]],
    )


def of_segmentor(validated: Segments) -> Findings:
    """Summarise a segmentor's predictions on the validation set."""
    classes, colours, matrix = validated.classes, validated.colours, validated.confusion
    iou, accuracy = iou_and_accuracy(matrix)
    share = 100 * matrix.sum(1) / max(1, matrix.sum())
    mean = np.ma.masked_invalid([iou, accuracy]).mean(1).filled(np.nan)
    rows = [
        [name, *map(percent, values)]
        for name, *values in (
            ('mean', np.nan, *mean),
            *zip(classes, share, iou, accuracy, strict=True),
        )
    ]
    table = Table(
        'IoU and accuracy by class, in percent', ['class', 'pixels', 'IoU', 'accuracy'], rows
    )
    ranked = [image for image in validated.images if image.miou is not None]
    ranked.sort(key=lambda image: -(image.miou or 0))

    def pair(image: LabelMap) -> Pair:
        rgb = mmcv.imread(image.path, channel_order='rgb')
        maps = (mmcv.imfrombytes(png, 'unchanged') for png in (image.truth, image.found))
        truth, found = (
            _jpeg(draw_labels(rgb, labels, classes, colours, PICTURE_SIDE)) for labels in maps
        )
        return Pair(Path(image.path).name, f'mIoU {image.miou:.1f}', truth, found)

    half = half_of(len(ranked))
    picture, confusions = _confusion(matrix, classes, 'pixels')
    return Findings(
        [table],
        len(validated.images),
        picture,
        len(classes) <= charts.MOST_NUMBERS,
        'Pixels, except those without an annotated class.',
        confusions,
        'Ranked by the mean IoU, in percent, over the annotated and predicted classes of the image.'
        + _left_out(len(validated.images) - len(ranked), 'annotated pixels'),
        [pair(image) for image in ranked[:half]],
        [pair(image) for image in ranked[::-1][: min(SHOWN, len(ranked) - half)]],
    )


def of_classifier(validated: Choices) -> Findings:
    """Summarise a classifier's predictions on the validation set."""
    classes, matrix = validated.classes, validated.confusion
    right, true, found = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid='ignore'):
        values = zip(classes, true, 100 * right / true, 100 * right / found, strict=True)
    rows = [['all', f'{true.sum():,}', percent(100 * right.sum() / true.sum()), '-']]
    rows += [[name, f'{number:,}', percent(a), percent(p)] for name, number, a, p in values]
    head = ['class', 'images', 'accuracy', 'precision']
    table = Table('Accuracy and precision by class, in percent', head, rows)

    def pair(image: Choice) -> Pair:
        rgb = np.asarray(Image.open(io.BytesIO(image.content)).convert('RGB'))
        truth, guess = classes[image.truth], classes[image.found]
        is_right = image.truth == image.found
        measure = f'{image.share:.2f} for the true class' + ('' if is_right else f': {guess}')
        return Pair(
            Path(image.path).name,
            measure,
            _jpeg(draw_name(rgb, truth, PICTURE_SIDE)),
            _jpeg(draw_name(rgb, f'{guess} {image.score:.2f}', PICTURE_SIDE, right=is_right)),
        )

    picture, confusions = _confusion(matrix, classes, 'images')
    half = half_of(validated.number)
    return Findings(
        [table],
        validated.number,
        picture,
        len(classes) <= charts.MOST_NUMBERS,
        'Images, by their true and their most likely class.',
        confusions,
        'Ranked by the score of the true class.',
        [pair(image) for image in validated.images[:half]],
        [pair(image) for image in validated.images[half:][::-1]],
    )


def percent(value: float) -> str:
    """A number in a table; NaN, and pycocotools' -1 for undefined figures, become a dash."""
    return f'{value:.1f}' if value >= 0 else '-'


def data_url(content: bytes, kind: str) -> str:
    """A data URL of a picture; ``kind`` is ``'jpeg'`` or ``'svg+xml'``."""
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'


def _left_out(number: int, without: str) -> str:
    return f' Images without {without} are not ranked: {number}.' if number else ''


def _jpeg(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, 'JPEG', quality=80)
    return data_url(content.getvalue(), 'jpeg')


def _confusion(matrix: np.ndarray, names: Sequence[str], unit: str) -> tuple[str, Table]:
    """The picture of a matrix, and a table of its largest entries off the diagonal."""
    off = matrix - np.diag(matrix.diagonal())
    largest = np.argsort(-off, axis=None, kind='stable')[:CONFUSIONS]
    rows = []
    for true, predicted in zip(*np.unravel_index(largest, off.shape), strict=True):
        number = off[true, predicted]
        if number:
            share = percent(100 * number / matrix[true].sum())
            rows.append([names[true], names[predicted], f'{number:,}', share])
    head = ['true', 'predicted', unit, 'percent of true']
    table = Table('The most frequent confusions', head, rows)
    return data_url(charts.matrix(matrix, names, names), 'svg+xml'), table
