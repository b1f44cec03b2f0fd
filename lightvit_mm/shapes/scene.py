"""One scene of the shapes data set: textured background, distractors, overlapping shapes.

A scene depends only on its seed, split, index, size and `Difficulty`. All arithmetic is in
integers, so the pixels are the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lightvit_mm.shapes.raster import (
    COSINE,
    FULL_TURN,
    SINE,
    SUBPIXELS,
    UNIT,
    fill_polygon,
    tight_box,
    twice_area,
)
from lightvit_mm.shapes.textures import along_direction, draw_texture, value_noise

CLASSES: tuple[str, ...] = ('disk', 'square', 'triangle', 'star')
"""Names of the classes, which differ only in outline."""

_PERCENT = 100
_PLACEMENT_TRIES = 12
_TEXTURE_TRIES = 6
# Knots of a blob's uneven radius, and the number of points per knot.
_BLOB_KNOTS, _BLOB_STEPS = 8, 6


@dataclass(frozen=True)
class Difficulty:
    """Parameters of a scene. Ranges are inclusive, sides are square roots of areas."""

    objects: tuple[int, int] = (2, 5)
    """Objects in an image; fewer if there is no room."""
    size_weights: tuple[int, int, int] = (25, 45, 30)
    """Relative frequencies of small, medium and large outlines, before occlusion."""
    small_side: tuple[int, int] = (14, 31)
    """Sides of small outlines, px."""
    medium_side: tuple[int, int] = (34, 80)
    """Sides of medium outlines, px."""
    large_side: tuple[int, int] = (97, 102)
    """Sides of large outlines, px; left out if the image is too small for them."""
    largest_percent: int = 66
    """Area of the largest outline, percent of the image."""
    aspect_percent: tuple[int, int] = (88, 114)
    """Stretch of an outline's width before rotation; its height shrinks by the same factor."""
    turn: int = 43
    """Largest rotation of an outline in either direction, 1/1024 turn; 512 allows any."""
    visible_percent: int = 60
    """Smallest visible part of every outline, percent."""
    visible_area: int = 50
    """Smallest visible area of an object, px."""
    visible_area_large: int = 96**2 + 1
    """The same for large outlines, most of which would become medium objects by occlusion."""
    truncated_percent: int = 12
    """Objects that may cross the border, percent."""
    empty_percent: int = 4
    """Images without any object, percent."""
    crowd_percent: int = 5
    """Images with a crowd, a cluster of small shapes of one class, percent."""
    crowd_side: tuple[int, int] = (8, 12)
    """Sides of a crowd's members, px; every crowd has 3 x 3 to 4 x 4 of them."""
    contrast: int = 130
    """Desired difference between an object's mean colour and what it covers, summed over RGB."""
    colour_spread: int = 36
    """Largest difference between a texture's two colours in a channel."""
    regions: tuple[int, int] = (1, 2)
    """Differently textured regions of the background."""
    blobs: tuple[int, int] = (0, 1)
    """Unlabelled blobs: textured like objects, but with an uneven outline."""
    lines: tuple[int, int] = (0, 2)
    """Unlabelled textured lines."""
    shade_percent: int = 20
    """Deepest shade of the uneven light over a scene, percent."""
    noise: int = 4
    """Amplitude of the noise in every pixel, grey levels."""


@dataclass(frozen=True)
class Instance:
    """The visible part of one object, or of one crowd."""

    category: int
    """Index into `CLASSES`."""
    is_crowd: bool
    """Whether this is a whole cluster, annotated as one."""
    mask: NDArray[np.bool_]
    """(H, W) visible pixels."""


@dataclass(frozen=True)
class Scene:
    """An image with its annotation."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    labels: NDArray[np.uint8]
    """(H, W): 0 for background, 1 + index into `CLASSES` elsewhere, crowds included."""
    instances: tuple[Instance, ...]
    """From back to front; no two share a pixel."""


@dataclass(frozen=True)
class _Wish:
    """An object still to be placed; for a crowd, `side` is that of its members."""

    category: int
    side: int
    is_crowd: bool


def draw_scene(
    seed: int, split: int, index: int, image_size: int, difficulty: Difficulty | None = None
) -> Scene:
    """Draw one scene.

    Args:
        seed: Seed of the data set, >= 0.
        split: Number of the split; scenes of different splits are independent.
        index: Number of the image within the split.
        image_size: Height and width in px.
        difficulty: Defaults to `Difficulty()`.

    Returns:
        The scene, image_size px square.
    """
    entropy = np.random.SeedSequence([seed, split, index])
    canvas = _Canvas(np.random.Generator(np.random.PCG64(entropy)), image_size, difficulty)
    canvas.paint_background()
    for wish in canvas.draw_wishes():
        canvas.place(wish)
    return canvas.finish()


class _Canvas:
    """A scene while it is being painted, from back to front."""

    def __init__(
        self, generator: np.random.Generator, size: int, difficulty: Difficulty | None
    ) -> None:
        self.generator = generator
        self.size = size
        self.difficulty = difficulty or Difficulty()
        self.image = np.zeros((size, size, 3), dtype=np.uint8)
        # Number, from 1, of the object visible at each pixel; 0 where there is none.
        self.owners = np.zeros((size, size), dtype=np.intp)
        self.placed: list[_Wish] = []
        # Smallest allowed visible area of object 0 (the background), 1, 2, ...
        self.least_visible = [0]

    def paint_background(self) -> None:
        """Paint regions with irregular borders, then blobs and lines."""
        size, knobs = self.size, self.difficulty
        self.image[:] = self._texture(size, size)
        for _ in range(self._in_range(knobs.regions) - 1):
            field = value_noise(self.generator, size, size, max(size // 3, 1))
            self._paint(field > int(self.generator.integers(110, 150)))
        for _ in range(self._in_range(knobs.blobs)):
            blob = self._scaled(_blob_outline(self.generator), self._draw_side(2))
            self._paint(self._fill(blob + self.generator.integers(size * SUBPIXELS, size=2)))
        for _ in range(self._in_range(knobs.lines)):
            self._paint(self._fill(self._line_outline()))

    def draw_wishes(self) -> list[_Wish]:
        """Draw the objects to place, from back to front."""
        knobs = self.difficulty
        if self._chance(knobs.empty_percent):
            return []
        wishes = []
        for _ in range(self._in_range(knobs.objects)):
            category = int(self.generator.integers(len(CLASSES)))
            wishes.append(_Wish(category, self._draw_side(3), False))
        # Large objects tend to the back, or they would hide most small ones.
        depths = [wish.side * int(self.generator.integers(40, 101)) for wish in wishes]
        order = sorted(range(len(wishes)), key=lambda number: -depths[number])
        wishes = [wishes[number] for number in order]
        if self._chance(knobs.crowd_percent):
            category = int(self.generator.integers(len(CLASSES)))
            crowd = _Wish(category, self._in_range(knobs.crowd_side), True)
            wishes.insert(int(self.generator.integers(len(wishes) + 1)), crowd)
        return wishes

    def place(self, wish: _Wish) -> None:
        """Paint an object where enough of all objects stays visible; else leave it out."""
        knobs = self.difficulty
        for _ in range(_PLACEMENT_TRIES):
            outlines = self._crowd(wish) if wish.is_crowd else [self._outline(wish)]
            outlines = self._moved(outlines)
            masks = [self._fill(outline) for outline in outlines]
            mask = np.logical_or.reduce(masks)
            # The members of a crowd overlap, so their areas do not add up: its smallest visible
            # part is a share of its area inside the border.
            area = int(mask.sum()) if wish.is_crowd else wish.side * wish.side
            large = not wish.is_crowd and wish.side >= knobs.large_side[0]
            least = max(
                area * knobs.visible_percent // _PERCENT,
                knobs.visible_area_large if large else knobs.visible_area,
            )
            if self._leaves_enough(mask, least):
                break
        else:
            return
        for member in masks:
            self._paint(member, knobs.contrast)
        self.placed.append(wish)
        self.owners[mask] = len(self.placed)
        self.least_visible.append(least)

    def finish(self) -> Scene:
        """Apply blur, light and noise, and collect the visible part of each object."""
        generator, size, knobs = self.generator, self.size, self.difficulty
        slope = along_direction(int(generator.integers(FULL_TURN)), size, size)
        slope -= slope.min()
        shade = int(generator.integers(knobs.shade_percent * 256 // _PERCENT + 1))
        light = (256 - slope * shade // max(int(slope.max()), 1)).astype(np.int32)
        image = _blurred(self.image) * light[:, :, None] >> 8
        image += generator.integers(-knobs.noise, knobs.noise + 1, size=image.shape, dtype=np.int16)
        categories = np.array([0, *(wish.category + 1 for wish in self.placed)], dtype=np.uint8)
        instances = tuple(
            Instance(wish.category, wish.is_crowd, self.owners == number)
            for number, wish in enumerate(self.placed, start=1)
        )
        return Scene(np.clip(image, 0, 255).astype(np.uint8), categories[self.owners], instances)

    def _in_range(self, limits: tuple[int, int]) -> int:
        return int(self.generator.integers(limits[0], limits[1] + 1))

    def _chance(self, percent: int) -> bool:
        return int(self.generator.integers(_PERCENT)) < percent

    def _texture(self, height: int, width: int) -> NDArray[np.uint8]:
        return draw_texture(self.generator, height, width, self.difficulty.colour_spread)

    def _draw_side(self, kinds: int) -> int:
        """Draw a side in px from those of the first ``kinds`` size ranges that fit the image."""
        knobs = self.difficulty
        largest = math.isqrt(self.size * self.size * knobs.largest_percent // _PERCENT)
        ranges = (knobs.small_side, knobs.medium_side, knobs.large_side)[:kinds]
        fitting = [limits for limits in ranges if limits[0] <= largest]
        bounds = np.cumsum(knobs.size_weights[: len(fitting)])
        drawn = int(self.generator.integers(bounds[-1]))
        low, high = fitting[int(np.searchsorted(bounds, drawn, side='right'))]
        return self._in_range((low, min(high, largest)))

    def _outline(self, wish: _Wish) -> NDArray[np.int64]:
        unit = _OUTLINES[CLASSES[wish.category]](self.generator)
        return self._scaled(unit, wish.side)

    def _scaled(self, unit: NDArray[np.int64], side: int) -> NDArray[np.int64]:
        """Stretch, turn and scale a unit outline to an area of side^2 px."""
        stretch = self._in_range(self.difficulty.aspect_percent)
        x = unit[:, 0] * stretch // _PERCENT
        y = unit[:, 1] * _PERCENT // stretch
        angle = self._in_range((-self.difficulty.turn, self.difficulty.turn)) % FULL_TURN
        cosine, sine = COSINE[angle], SINE[angle]
        turned = np.stack([x * cosine - y * sine, x * sine + y * cosine], axis=1) // UNIT
        wanted = 2 * (side * SUBPIXELS) ** 2
        scale = math.isqrt((wanted << 40) // abs(twice_area(turned)))
        return turned * scale >> 20

    def _crowd(self, wish: _Wish) -> list[NDArray[np.int64]]:
        """Outlines of a crowd's members on a jittered grid."""
        rows, columns = self._in_range((3, 4)), self._in_range((3, 4))
        pitch = wish.side * SUBPIXELS * 5 // 4
        members = []
        for row in range(rows):
            for column in range(columns):
                jitter = self.generator.integers(-pitch // 5, pitch // 5 + 1, size=2)
                offset = np.array([column * pitch, row * pitch]) + jitter
                members.append(self._outline(wish) + offset)
        return members

    def _line_outline(self) -> NDArray[np.int64]:
        """A long quadrilateral, too thin to be taken for a square."""
        scale = self.size * SUBPIXELS
        length = self._in_range((scale // 3, scale))
        breadth = self._in_range((SUBPIXELS, max(SUBPIXELS, min(4 * SUBPIXELS, length // 20))))
        angle = int(self.generator.integers(FULL_TURN))
        cosine, sine = int(COSINE[angle]), int(SINE[angle])
        corners = [(-length, -breadth), (length, -breadth), (length, breadth), (-length, breadth)]
        turned = [
            ((x * cosine - y * sine) // (2 * UNIT), (x * sine + y * cosine) // (2 * UNIT))
            for x, y in corners
        ]
        return np.array(turned, dtype=np.int64) + self.generator.integers(scale, size=2)

    def _moved(self, outlines: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        """Move outlines together to a random place, usually entirely inside the image."""
        points = np.concatenate(outlines)
        low, high = points.min(axis=0), points.max(axis=0)
        extent = self.size * SUBPIXELS
        first, last = -low, extent - high
        if self._chance(self.difficulty.truncated_percent):
            first, last = -(low + high) // 2, extent - (low + high) // 2
        middle = (first + last) // 2
        fits = first <= last
        shift = self.generator.integers(
            np.where(fits, first, middle), np.where(fits, last, middle) + 1
        )
        return [outline + shift for outline in outlines]

    def _fill(self, outline: NDArray[np.int64]) -> NDArray[np.bool_]:
        return fill_polygon(outline, self.size, self.size)

    def _leaves_enough(self, mask: NDArray[np.bool_], least: int) -> bool:
        """Whether enough of all objects stays visible under a new one, itself included."""
        if int(mask.sum()) < least:
            return False
        count = len(self.least_visible)
        visible = np.bincount(self.owners[~mask], minlength=count)
        return bool(np.all(visible[1:] >= self.least_visible[1:]))

    def _paint(self, mask: NDArray[np.bool_], contrast: int = 0) -> None:
        """Cover a mask with a texture whose mean colour differs enough from what it covers."""
        left, top, width, height = tight_box(mask)
        if not width:
            return
        window = np.s_[top : top + height, left : left + width]
        inside = mask[window]
        pixels = int(inside.sum())
        covered = self.image[window][inside].sum(axis=0, dtype=np.int64)
        best = -1
        for _ in range(_TEXTURE_TRIES):
            texture = self._texture(*inside.shape)[inside]
            difference = np.abs(texture.sum(axis=0, dtype=np.int64) - covered).sum() // pixels
            if difference > best:
                self.image[window][inside] = texture
                best = int(difference)
            if best >= contrast:
                break


def _polygon(angles: NDArray[np.int64], radius_percent: NDArray[np.int64]) -> NDArray[np.int64]:
    """Vertices (V, 2) at angles in 1/1024 turn and radii in percent of `UNIT`."""
    unit = np.stack([COSINE[angles % FULL_TURN], SINE[angles % FULL_TURN]], axis=1)
    return unit * radius_percent[:, None] // _PERCENT


def _regular_outline(corners: int) -> Callable[[np.random.Generator], NDArray[np.int64]]:
    def outline(generator: np.random.Generator) -> NDArray[np.int64]:
        # It stands on a side, so that a stretched square is a rectangle.
        angles = (2 * np.arange(corners) + 1) * FULL_TURN // (2 * corners) + FULL_TURN // 4
        return _polygon(angles, np.full(corners, _PERCENT))

    return outline


def _star_outline(generator: np.random.Generator) -> NDArray[np.int64]:
    radii = np.full(10, _PERCENT)
    radii[1::2] = generator.integers(40, 51)
    return _polygon(np.arange(10) * FULL_TURN // 10 - FULL_TURN // 4, radii)


def _blob_outline(generator: np.random.Generator) -> NDArray[np.int64]:
    knots = generator.integers(25, 101, size=_BLOB_KNOTS)
    count = _BLOB_KNOTS * _BLOB_STEPS
    positions = np.arange(count)
    start, weight = positions // _BLOB_STEPS, positions % _BLOB_STEPS
    end = (start + 1) % _BLOB_KNOTS
    radii = (knots[start] * (_BLOB_STEPS - weight) + knots[end] * weight) // _BLOB_STEPS
    return _polygon(positions * FULL_TURN // count, radii)


# 64 corners are within 0.1 px of the true disk at every size drawn at 128 px.
_OUTLINES: dict[str, Callable[[np.random.Generator], NDArray[np.int64]]] = {
    'disk': _regular_outline(64),
    'square': _regular_outline(4),
    'triangle': _regular_outline(3),
    'star': _star_outline,
}


def _blurred(image: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Blur by (1, 2, 1) / 4 in both directions, which softens pixel edges as a lens would."""
    # The sums are integers up to 16 * 255, exact in whatever type OpenCV adds them.
    kernel = np.array([1, 2, 1], dtype=np.float32)
    sums = cv2.sepFilter2D(image, cv2.CV_16S, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
    return sums.astype(np.int32) >> 4
