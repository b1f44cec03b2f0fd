"""What a model found in an image, as numpy arrays."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from pycocotools import mask as mask_codec

from lightvit_mm.engine.drawing import Colour, draw_labels, draw_names, draw_objects
from lightvit_mm.engine.objects import Objects
from lightvit_mm.errors import UserError
from lightvit_mm.files import IMAGE_SUFFIXES, write_whole

if TYPE_CHECKING:
    import supervision
    from typing_extensions import Self  # in Python 3.10, typing has none

__all__ = ['Classification', 'Detections', 'Result', 'Segmentation']

# Of a classifier's classes, so many are named.
MOST_LIKELY = 5


@dataclass(kw_only=True, eq=False, repr=False)
class Result(ABC):
    """What was found in one image; each kind of model has a subclass.

    Attributes:
        image: (H, W, 3) the image, blue, green and red, 0 to 255, as OpenCV reads it.
        classes: names of all classes that the model knows.
        colours: red, green and blue of each class, 0 to 255.
        path: the file that the image was read from, or the video; None for an array.
        frame: number of the frame in a video, from 0; None for other images.
    """

    image: np.ndarray
    classes: Sequence[str]
    colours: Sequence[Colour]
    path: str | None = None
    frame: int | None = None

    def above(self, score: float) -> Self:
        """The same without what has a lower score; a result without scores stays as it is."""
        return self

    def draw(self, out: str | Path | None = None) -> np.ndarray:
        """Draw the result over the image.

        Args:
            out: an image file to write, replaced if it exists; its suffix sets the format.

        Returns:
            (H, W, 3) the picture, blue, green and red, 0 to 255.

        Raises:
            UserError: ``out`` has another suffix, or is the image itself.
            OSError: ``out`` cannot be written; the error names it.
        """
        side = max(self.image.shape[:2])
        drawn = np.asarray(self._drawn(cv2.cvtColor(self.image, cv2.COLOR_BGR2RGB), side))
        picture = cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)
        if out is not None:
            suffix = Path(out).suffix.lower()
            if suffix not in IMAGE_SUFFIXES:
                raise UserError(f'{out}: a picture ends in {", ".join(IMAGE_SUFFIXES)}')
            if self.path and os.path.realpath(out) == os.path.realpath(self.path):
                raise UserError(f'{out} is the image itself: give another name')
            write_whole(out, cv2.imencode(suffix, picture)[1].tobytes())
        return picture

    def to_dict(self) -> dict[str, Any]:
        """The result in Python's own types, without pixels; what `to_json` writes."""
        place = {'file': self.path} if self.frame is None else {'frame': self.frame}
        height, width = self.image.shape[:2]
        return {**place, 'width': width, 'height': height, **self._found()}

    def to_json(self) -> str:
        """The result as one line of JSON, as in the files of tools/predict.py."""
        return json.dumps(self.to_dict())

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        source = self.path or 'an array'
        frame = '' if self.frame is None else f', frame {self.frame}'
        return f'{type(self).__name__}({source}{frame}, {width} x {height}: {self._summary()})'

    @abstractmethod
    def _drawn(self, image: np.ndarray, side: int) -> Any:
        """Draw over an image (H, W, 3), red, green and blue, whose longer side becomes ``side``."""

    @abstractmethod
    def _found(self) -> dict[str, Any]:
        """The part of `to_dict` that this kind of model adds."""

    @abstractmethod
    def _summary(self) -> str:
        """What was found, in a few words."""


@dataclass(kw_only=True, eq=False, repr=False)
class Detections(Result):
    """The objects that a detector found, n of them, the highest score first.

    Attributes:
        boxes: (n, 4) float, corners x1, y1, x2, y2 in pixels of the image.
        scores: (n,) float, 0 to 1.
        labels: (n,) int, the classes by number.
        masks: (n, H, W) bool, the pixels of each object; None if the model predicts none.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> list[str]:
        """The class name of each object."""
        return [self.classes[label] for label in self.labels]

    def above(self, score: float) -> Self:
        """The same without the objects that have a lower score."""
        kept = self.scores >= score
        masks = None if self.masks is None else self.masks[kept]
        return replace(
            self,
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            labels=self.labels[kept],
            masks=masks,
        )

    def to_supervision(self) -> supervision.Detections:
        """The objects as ``supervision.Detections``, class names included.

        Raises:
            UserError: supervision is not installed.
        """
        try:
            from supervision import Detections as Theirs
        except ImportError as error:
            raise UserError(f'to_supervision(): {error}; pip install supervision') from error
        return Theirs(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels,
            mask=self.masks,
            data={'class_name': np.array(self.names, dtype=str)},
        )

    @cached_property
    def _run_lengths(self) -> list[dict] | None:
        if self.masks is None:
            return None
        return [mask_codec.encode(np.asfortranarray(mask, np.uint8)) for mask in self.masks]

    def _drawn(self, image: np.ndarray, side: int) -> Any:
        crowd = np.zeros(len(self), dtype=bool)
        objects = Objects(self.boxes, self.labels, self.scores, crowd, self._run_lengths)
        return draw_objects(image, objects, self.classes, self.colours, side, with_scores=True)

    def _found(self) -> dict[str, Any]:
        detections = [
            {'class': name, 'label': label, 'score': score, 'box_xyxy': box}
            for name, label, score, box in zip(
                self.names,
                self.labels.tolist(),
                self.scores.tolist(),
                self.boxes.tolist(),
                strict=True,
            )
        ]
        for detection, mask in zip(detections, self._run_lengths or (), strict=False):
            detection['mask'] = {'size': mask['size'], 'counts': mask['counts'].decode()}
        return {'detections': detections}

    def _summary(self) -> str:
        counts = Counter(self.names)
        return ', '.join(f'{number} {name}' for name, number in counts.most_common()) or 'nothing'


@dataclass(kw_only=True, eq=False, repr=False)
class Segmentation(Result):
    """The class of every pixel.

    Attributes:
        label_map: (H, W) uint8, the classes by number.
    """

    label_map: np.ndarray

    @cached_property
    def labels(self) -> np.ndarray:
        """(n,) int, the classes that are present, by number, in ascending order."""
        return np.unique(self.label_map).astype(int)

    @property
    def names(self) -> list[str]:
        """The names of `labels`."""
        return [self.classes[label] for label in self.labels]

    def _drawn(self, image: np.ndarray, side: int) -> Any:
        return draw_labels(image, self.label_map, self.classes, self.colours, side)

    def _found(self) -> dict[str, Any]:
        pixels = np.bincount(self.label_map.ravel())[self.labels]
        return {
            'segments': [
                {'class': name, 'label': label, 'pixels': count}
                for name, label, count in zip(
                    self.names, self.labels.tolist(), pixels.tolist(), strict=True
                )
            ]
        }

    def _summary(self) -> str:
        return ', '.join(self.names)


@dataclass(kw_only=True, eq=False, repr=False)
class Classification(Result):
    """The class of the whole image.

    Attributes:
        all_scores: (classes,) float, the score of every class by number; they add up to 1.
    """

    all_scores: np.ndarray

    @cached_property
    def labels(self) -> np.ndarray:
        """(n,) int, the most likely classes by number, at most five, the most likely first."""
        return np.argsort(-self.all_scores, kind='stable')[:MOST_LIKELY]

    @property
    def scores(self) -> np.ndarray:
        """(n,) float, the scores of `labels`."""
        return self.all_scores[self.labels]

    @property
    def names(self) -> list[str]:
        """The names of `labels`."""
        return [self.classes[label] for label in self.labels]

    def _drawn(self, image: np.ndarray, side: int) -> Any:
        named = zip(self.names, self.scores, strict=True)
        return draw_names(image, [f'{name} {score:.2f}' for name, score in named], side)

    def _found(self) -> dict[str, Any]:
        return {
            'classes': [
                {'class': name, 'label': label, 'score': score}
                for name, label, score in zip(
                    self.names, self.labels.tolist(), self.scores.tolist(), strict=True
                )
            ]
        }

    def _summary(self) -> str:
        return f'{self.names[0]} {self.scores[0]:.2f}'
