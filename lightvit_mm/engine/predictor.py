"""A trained model as a function: images in, results in numpy out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, overload

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from lightvit_mm.classification.predicting import image_pipeline
from lightvit_mm.data.config import datasets_of, is_classifier
from lightvit_mm.data.findings import ERROR
from lightvit_mm.data.images import look_at_image
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.drawing import palette_of
from lightvit_mm.engine.exported_model import is_exported, load_exported
from lightvit_mm.engine.results import Classification, Detections, Result, Segmentation
from lightvit_mm.engine.trained_model import load_model, usable_device
from lightvit_mm.engine.video import VideoFrames
from lightvit_mm.errors import UserError

__all__ = ['ImageError', 'Predictor']

Image = str | Path | np.ndarray


class ImageError(UserError):
    """An image that cannot be used.

    Attributes:
        reason: why, without the name of the image.
    """

    def __init__(self, image: str, reason: str) -> None:
        super().__init__(f'{image}: {reason}')
        self.reason = reason


class Predictor:
    """A trained detector, segmentor or classifier, loaded once and called with images.

    An image is a path or an array (H, W, 3) of type uint8: blue, green and red, as OpenCV reads it.
    One image gives a `Detections`, a `Segmentation` or a `Classification`, a list of images a list
    of results, and any other iterable a generator that takes an image from it for each result, so
    that the memory in use does not grow.

    Args:
        config: a config as tools/train.py takes it: a file, the name of one that comes with the
            package, or one that is loaded (it is copied).
        checkpoint: the weights (a file or an https:// address), or a whole model exported by
            tools/export.py, which runs on the CPU.
        device: torch device; by default a GPU if there is one.
        score_thr: objects with a lower score are left out.

    Attributes:
        classes: the names of the classes, by number.
        score_thr: see above; may be changed.

    Raises:
        UserError: there is no such config or file, the checkpoint does not fit the config, or the
            device cannot be used.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path,
        device: str | None = None,
        score_thr: float = 0.3,
    ) -> None:
        config = copy.deepcopy(config) if isinstance(config, Config) else load_config(str(config))
        self.score_thr = score_thr
        self._model = _load(config, str(checkpoint), device)
        self.classes: tuple[str, ...] = tuple(self._model.dataset_meta['classes'])
        self._colours = palette_of(self._model.dataset_meta)
        self._pipeline: Any
        if is_classifier(config):
            self._pipeline = image_pipeline(config.test_dataloader.dataset.transform)
            return
        # Built here, since the default scope may be another one when an image comes.
        with DefaultScope.overwrite_default_scope(config.default_scope):
            self._pipeline = Compose(_steps(config))

    @overload
    def __call__(self, source: Image) -> Result: ...

    @overload
    def __call__(self, source: list[Image] | tuple[Image, ...]) -> list[Result]: ...

    @overload
    def __call__(self, source: Iterator[Image]) -> Iterator[Result]: ...

    def __call__(self, source: Any) -> Any:
        """Predict an image, a list of images, or what an iterable yields, see `Predictor`.

        Raises:
            ImageError: an image cannot be read, or is not such an array.
        """
        if isinstance(source, (str, Path)):
            return self._predict(_read(source), str(source))
        if isinstance(source, np.ndarray):
            return self._predict(source)
        if isinstance(source, (list, tuple)):
            return [self(image) for image in source]
        if isinstance(source, Iterable) and not isinstance(source, torch.Tensor):
            return (self(image) for image in source)
        raise ImageError(f'{type(source).__name__} {source!r:.40}', f'expected {EXPECTED}')

    def video(self, source: str | Path | int) -> Iterator[Result]:
        """Predict the frames of a video, one at a time.

        Broken frames are left out; a warning at the end counts them.

        Args:
            source: a file, the address of a stream (``rtsp://...``) or the number of a camera.

        Raises:
            UserError: the video cannot be opened.
        """
        with VideoFrames(source) as frames:
            yield from (result for _, result in self.frames(frames) if result is not None)
            frames.warn()

    def frames(self, frames: VideoFrames) -> Iterator[tuple[int, Result | None]]:
        """Predict the frames of an open video; the result of a broken one is None."""
        for number, image in frames:
            found = None if image is None else self._predict(image, frames.name, number)
            yield number, found

    def _predict(
        self, image: np.ndarray, path: str | None = None, frame: int | None = None
    ) -> Result:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            given = f'an array {image.shape} of type {image.dtype}'
            raise ImageError(given, f'expected {EXPECTED}')
        size = image.shape[:2]
        # What mmdet's and mmseg's LoadImageFromNDArray give to the next step.
        data = {'img': image, 'img_path': path, 'img_id': 0, 'img_shape': size, 'ori_shape': size}
        try:
            data = self._pipeline(data)
        except cv2.error as error:
            # For instance, resizing leaves no pixel of a very long image.
            name = path or f'an array {image.shape}'
            raise ImageError(name, f'{type(error).__name__}: {error}'.strip()) from error
        batch = {'inputs': [data['inputs']], 'data_samples': [data['data_samples']]}
        with torch.no_grad():
            (sample,) = self._model.test_step(batch)
        common = {
            'image': image,
            'classes': self.classes,
            'colours': self._colours,
            'path': path,
            'frame': frame,
        }
        return _result(sample, common).above(self.score_thr)


EXPECTED = (
    'a path, an array (H, W, 3) of type uint8 (blue, green, red), a list of these or an iterator '
    'over them; of a PIL image, give numpy.array(image.convert("RGB"))[..., ::-1]'
)


def _load(config: Config, checkpoint: str, device: str | None) -> Any:
    if not is_exported(checkpoint):
        return load_model(config, checkpoint, usable_device(device))
    if is_classifier(config):
        raise UserError(f'{checkpoint}: exported files of classifiers are not run')
    if device not in (None, 'cpu'):
        raise UserError(f'--device {device}: an exported file runs on the cpu; leave it out')
    return load_exported(config, checkpoint)


def _steps(config: Config) -> list[dict[str, Any]]:
    """The test pipeline for images that are loaded and have no annotations."""
    # Those that mmseg's and mmdet's inference functions take.
    pipeline = config.get('test_pipeline') if config.default_scope == 'mmseg' else None
    pipeline = pipeline or next(datasets_of(config.test_dataloader))['pipeline']
    return [step for step in copy.deepcopy(pipeline)[1:] if step['type'] != 'LoadAnnotations']


def _result(sample: Any, common: dict[str, Any]) -> Result:
    """Convert a data sample; another kind of model adds a subclass of `Result` and a case here."""
    if 'pred_scores' in sample:
        return Classification(all_scores=sample.pred_scores.cpu().numpy(), **common)
    if 'pred_sem_seg' in sample:
        label_map = sample.pred_sem_seg.data.squeeze(0).cpu().numpy().astype(np.uint8)
        return Segmentation(label_map=label_map, **common)
    found = sample.pred_instances.cpu().numpy()
    return Detections(
        boxes=found.bboxes,
        scores=found.scores,
        labels=found.labels,
        masks=found.masks.astype(bool) if 'masks' in found else None,
        **common,
    )


def _read(path: str | Path) -> np.ndarray:
    """Read an image as BGR, as the pipelines do."""
    loaded: dict[str, np.ndarray] = {}

    def load(_: dict) -> dict | None:
        image = mmcv.imread(path, channel_order='bgr')
        if image is None:
            return None
        loaded['img'] = image
        return loaded

    judgements = look_at_image(str(path), load).judgements
    reasons = [
        f'{kind} {detail}'.strip() for severity, kind, detail in judgements if severity == ERROR
    ]
    if reasons:
        raise ImageError(str(path), '; '.join(reasons))
    return loaded['img']
