"""Predicting on the validation set of a run, for its report."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from rich.progress import track

from lightvit_mm.data.checking import check_before_run
from lightvit_mm.data.config import evaluators_of, is_classifier
from lightvit_mm.engine.broken_samples import NamingRunner
from lightvit_mm.engine.drawing import Colour, palette_of
from lightvit_mm.engine.objects import from_annotations, from_instances
from lightvit_mm.engine.trained_model import load_model, usable_device
from lightvit_mm.reporting import detection, segmentation

SHOWN = 24  # most images to show as the best, and as the worst


@dataclass
class Detections:
    """Predictions of a detector.

    Attributes:
        classes: names of the classes.
        colours: colours of the classes.
        images: all images of the validation set.
        score: the score threshold with the highest F1 over all images.
        confusion: see `detection.confusion`.
        precision: `detection.average_precision` by kind, ``'bbox'`` and with masks ``'segm'``;
            empty if the data set is not in COCO's format.
    """

    classes: tuple[str, ...]
    colours: list[Colour]
    images: list[detection.Image]
    score: float
    confusion: np.ndarray
    precision: dict[str, np.ndarray]


@dataclass
class LabelMap:
    """Prediction of a segmentor for one image.

    Attributes:
        path: its file.
        truth, found: class numbers as PNG, since the label maps of a whole set are large.
        miou: in percent, over annotated and predicted classes; None if no pixel is annotated.
    """

    path: str
    truth: bytes
    found: bytes
    miou: float | None


@dataclass
class Segments:
    """Predictions of a segmentor.

    Attributes:
        classes: names of the classes.
        colours: colours of the classes.
        images: all images of the validation set.
        confusion: `segmentation.confusion` over all images.
    """

    classes: tuple[str, ...]
    colours: list[Colour]
    images: list[LabelMap]
    confusion: np.ndarray


@dataclass
class Choice:
    """Prediction of a classifier for one image.

    Attributes:
        path: its file, or its name in an archive.
        content: the file.
        truth, found: true and most likely class.
        share: score of the true class.
        score: score of the most likely class.
    """

    path: str
    content: bytes
    truth: int
    found: int
    share: float
    score: float


@dataclass
class Choices:
    """Predictions of a classifier.

    Attributes:
        classes: names of the classes.
        images: the first and the last of all images by the score of their true class.
        number: number of images in the validation set.
        confusion: (classes, classes), images by true class and most likely class.
    """

    classes: tuple[str, ...]
    images: list[Choice]
    number: int
    confusion: np.ndarray


def validate(
    config: Config, checkpoint: str, device: str | None = None
) -> Detections | Segments | Choices:
    """Predict on every image of a config's validation set, and show progress.

    Args:
        config: config of the model, from `load_config`.
        checkpoint: its weights.
        device: where to predict; None means a GPU if there is one.

    Raises:
        UserError: the data are missing or unusable, the checkpoint does not fit the config, or
            there is no such device.
    """
    check_before_run(config, ('val',))
    model = load_model(config, checkpoint, usable_device(device))
    loader = NamingRunner.build_dataloader(_in_order(config.val_dataloader))
    if is_classifier(config):
        return _choices(model, loader)
    if config.default_scope == 'mmdet':
        return _detections(model, loader, config)
    return _segments(model, loader)


def _in_order(dataloader: Mapping[str, Any]) -> dict[str, Any]:
    """The dataloader's config, changed to take images in the order of the data set."""
    changed = copy.deepcopy(dict(dataloader))
    changed.pop('batch_sampler', None)
    return {**changed, 'sampler': {'type': 'DefaultSampler', 'shuffle': False}}


def _predictions(model: Any, loader: Any) -> Iterator[Any]:
    with torch.inference_mode():
        for batch in track(loader, description='predicting'):
            yield from (sample.cpu() for sample in model.test_step(batch))


def _detections(model: Any, loader: Any, config: Config) -> Detections:
    dataset, images = loader.dataset, []
    for number, sample in enumerate(_predictions(model, loader)):
        info = dataset.get_data_info(number)
        truth = from_annotations(info['instances'], *sample.ori_shape[:2])
        found = from_instances(sample.pred_instances)
        if found.masks is None:
            truth.masks = None
        matches = detection.match(found, truth, by_class=True)
        image = detection.Image(info['img_path'], info['img_id'], truth, found, matches)
        images.append(image)
    classes = tuple(dataset.metainfo['classes'])
    score = detection.best_score(images)
    precision = {}
    if hasattr(dataset, 'cat_ids'):
        most = evaluators_of(config.val_evaluator)[0].get('proposal_nums', (100, 300, 1000))
        has_masks = any(image.found.masks is not None for image in images)
        for kind in ('bbox', 'segm') if has_masks else ('bbox',):
            precision[kind] = detection.average_precision(images, dataset, kind, most)
    matrix = detection.confusion(images, len(classes), score)
    return Detections(classes, palette_of(dataset.metainfo), images, score, matrix, precision)


def _segments(model: Any, loader: Any) -> Segments:
    metainfo = loader.dataset.metainfo
    classes = tuple(metainfo['classes'])
    total = np.zeros((len(classes), len(classes)), dtype=np.int64)
    images = []
    for sample in _predictions(model, loader):
        truth, found = (
            maps.data.squeeze(0).numpy().astype(np.uint8)
            for maps in (sample.gt_sem_seg, sample.pred_sem_seg)
        )
        matrix = segmentation.confusion(truth, found, len(classes))
        total += matrix
        iou, _ = segmentation.iou_and_accuracy(matrix)
        miou = float(np.nanmean(iou)) if matrix.any() else None
        pngs = [cv2.imencode('.png', labels)[1].tobytes() for labels in (truth, found)]
        images.append(LabelMap(sample.img_path, pngs[0], pngs[1], miou))
    return Segments(classes, palette_of(metainfo), images, total)


def _choices(model: Any, loader: Any) -> Choices:
    dataset, classes = loader.dataset, tuple(model.dataset_meta['classes'])
    matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
    chosen = []
    for number, sample in enumerate(_predictions(model, loader)):
        truth, found = int(sample.gt_label), int(sample.pred_label)
        matrix[truth, found] += 1
        scores = sample.pred_scores
        chosen.append((number, truth, found, float(scores[truth]), float(scores[found])))
    chosen.sort(key=lambda choice: -choice[3])
    half = half_of(len(chosen))
    images = []
    for number, truth, found, share, score in chosen[:half] + chosen[half:][-SHOWN:]:
        with dataset.open(number) as file:
            path, content = dataset.name(number), file.read()
        images.append(Choice(path, content, truth, found, share, score))
    return Choices(classes, images, len(chosen), matrix)


def half_of(number: int) -> int:
    """How many of ``number`` images to show as the best; the worst are other images."""
    return min(SHOWN, (number + 1) // 2)
