"""Drawing objects and label maps, legible even on small pictures and with many objects.

The visualizers of mmdet and mmseg are made for large pictures: on small ones, their letters hide
the objects, and an image with hundreds of masks takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as mask_codec

from lightvit_mm.engine.objects import Objects

Colour = tuple[int, int, int]
# With more objects, names would hide them.
MOST_NAMES = 20
# A class of a label map is named if its largest piece covers this share of the picture.
NAMED_SHARE = 0.01
OPACITY = 0.45
FONT_SIZE = 12  # pixels; on pictures longer than LEGIBLE, letters and lines grow with the side
LEGIBLE = 640


def palette_of(metainfo: Mapping[str, Any]) -> list[Colour]:
    """A colour for each class of a data set.

    Up to 20 classes get colours that are easy to distinguish; more classes get those of the data
    set, if it has any.
    """
    from matplotlib import colormaps

    num_classes, own = len(metainfo['classes']), metainfo.get('palette')
    if num_classes > 20 and own is not None and len(own) >= num_classes:
        return [(int(r), int(g), int(b)) for r, g, b in own[:num_classes]]
    listed = colormaps['tab10' if num_classes <= 10 else 'tab20'].colors  # type: ignore[attr-defined]
    return [
        tuple(int(255 * part) for part in listed[number % len(listed)])  # type: ignore[misc]
        for number in range(num_classes)
    ]


def fitted(image: np.ndarray, side: int) -> Image.Image:
    """Resize an (H, W, 3) RGB image so that its longer side has ``side`` pixels."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)


def draw_objects(
    image: np.ndarray,
    objects: Objects,
    classes: Sequence[str],
    colours: Sequence[Colour],
    side: int,
    with_scores: bool = False,
) -> Image.Image:
    """Draw objects over an image, as masks if they have any, otherwise as boxes.

    Args:
        image: (H, W, 3) RGB, 0 to 255, of the size to which the objects refer.
        objects: the objects to draw.
        classes: names of the classes.
        colours: colours of the classes.
        side: longer side of the result in pixels.
        with_scores: write the scores after the names.
    """
    picture = fitted(image, side)
    scale = np.array([picture.width / image.shape[1], picture.height / image.shape[0]])
    # The highest scores last, so that nothing covers them.
    order = np.argsort(objects.scores, kind='stable')
    if objects.masks is not None:
        picture = _with_masks(picture, objects.chosen(order), colours)
    draw = ImageDraw.Draw(picture)
    boxes = objects.boxes * np.tile(scale, 2)
    for number in order:
        colour = colours[objects.labels[number]]
        if objects.masks is None:
            x1, y1, x2, y2 = boxes[number]
            corners = [x1, y1, max(x1, x2), max(y1, y2)]
            width = 1 if objects.crowd[number] else round(2 * _growth(picture.size))
            draw.rectangle(corners, outline=colour, width=width)
    if len(objects) <= MOST_NAMES:
        for number in order:
            label = objects.labels[number]
            text = f'crowd of {classes[label]}' if objects.crowd[number] else classes[label]
            if with_scores:
                text += f' {objects.scores[number]:.2f}'
            x, y = boxes[number, :2]
            _name(draw, picture.size, (x, y), text, colours[label])
    return picture


def draw_labels(
    image: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    colours: Sequence[Colour],
    side: int,
) -> Image.Image:
    """Draw a label map over an image; pixels without a class stay as they are.

    Args:
        image: (H, W, 3) RGB, 0 to 255.
        labels: (H, W) class numbers.
        classes, colours, side: see `draw_objects`.
    """
    picture = fitted(image, side)
    small = np.asarray(
        Image.fromarray(labels.astype(np.uint8)).resize(picture.size, Image.Resampling.NEAREST)
    )
    pixels = np.asarray(picture).astype(float)
    present = [int(label) for label in np.unique(small) if label < len(classes)]
    for label in present:
        pixels[small == label] *= 1 - OPACITY
        pixels[small == label] += OPACITY * np.array(colours[label])
    picture = Image.fromarray(pixels.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for label in present:
        pieces = cv2.connectedComponentsWithStats((small == label).astype(np.uint8))
        largest = 1 + pieces[2][1:, cv2.CC_STAT_AREA].argmax()
        if pieces[2][largest, cv2.CC_STAT_AREA] >= NAMED_SHARE * small.size:
            _name(draw, picture.size, pieces[3][largest], classes[label], colours[label], True)
    return picture


def draw_name(image: np.ndarray, name: str, side: int, right: bool = True) -> Image.Image:
    """Write the name of a class on an (H, W, 3) RGB image, on green if it is right, or on red."""
    picture = fitted(image, side)
    colour = (0, 120, 60) if right else (190, 30, 30)
    _name(ImageDraw.Draw(picture), picture.size, (0, 0), name, colour)
    return picture


def draw_names(image: np.ndarray, names: Sequence[str], side: int) -> Image.Image:
    """Write names below each other on an (H, W, 3) RGB image, from its upper left corner."""
    picture = fitted(image, side)
    draw = ImageDraw.Draw(picture)
    step = 1.5 * FONT_SIZE * _growth(picture.size)
    for number, name in enumerate(names, start=1):
        _name(draw, picture.size, (0, number * step), name, (255, 255, 255))
    return picture


def _with_masks(picture: Image.Image, objects: Objects, colours: Sequence[Colour]) -> Image.Image:
    pixels = np.asarray(picture).copy()
    assert objects.masks is not None
    for label, mask in zip(objects.labels, objects.masks, strict=True):
        bitmap = cv2.resize(mask_codec.decode(mask), picture.size, interpolation=cv2.INTER_NEAREST)
        x, y, width, height = cv2.boundingRect(bitmap)  # blending the whole picture takes long
        around = pixels[y : y + height, x : x + width]
        inside = bitmap[y : y + height, x : x + width] > 0
        blend = (1 - OPACITY) * around[inside] + OPACITY * np.array(colours[label])
        around[inside] = blend.astype(np.uint8)
        outline, _ = cv2.findContours(bitmap, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(pixels, outline, -1, colours[label], 1)
    return Image.fromarray(pixels)


def _growth(size: tuple[int, int]) -> float:
    return max(1.0, max(size) / LEGIBLE)


def _name(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    place: Sequence[float],
    text: str,
    colour: Colour,
    centred: bool = False,
) -> None:
    """Write on a coloured background above a place, or around it, moved to be in the picture."""
    text = ' '.join(text.split())  # Pillow measures one line only
    letters = font(round(FONT_SIZE * _growth(size)))
    margin = round(letters.size / 6)
    width, height = draw.textlength(text, font=letters) + 2 * margin, letters.size + margin + 1
    left, up = (width / 2, height / 2) if centred else (0, height)
    x = min(max(place[0] - left, 0), max(0, size[0] - width))
    y = min(max(place[1] - up, 0), max(0, size[1] - height))
    draw.rectangle([x, y, x + width, y + height], fill=colour)
    # Luma weights of red, green and blue (ITU-R BT.601).
    is_light = np.dot(colour, (0.299, 0.587, 0.114)) > 140
    draw.text((x + margin, y + 1), text, fill='black' if is_light else 'white', font=letters)


@cache
def font(size: int = FONT_SIZE) -> ImageFont.FreeTypeFont:
    """The font of all pictures, so many pixels high."""
    from matplotlib.font_manager import findfont

    # Comes with matplotlib, and has Greek and Cyrillic letters.
    return ImageFont.truetype(findfont('DejaVu Sans'), size)
