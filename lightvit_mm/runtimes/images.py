"""Images on their way into an exported file."""

from __future__ import annotations

from typing import Any

import numpy as np

from lightvit_mm.runtimes.session import Size


def fit_image(image: np.ndarray, size: Size, padding: np.ndarray) -> tuple[np.ndarray, Size]:
    """Place an image in the upper left corner of a graph's input.

    Args:
        image: (height, width, 3), as OpenCV reads it; shrunk if it is larger than ``size``.
        size: height and width of the input.
        padding: the colour (3,) of the rest.

    Returns:
        The input (1, 3, *size) float32, and the height and width that the image has in it.
    """
    import mmcv

    height, width = image.shape[:2]
    if height > size[0] or width > size[1]:
        height, width = inner_size((height, width), size)
        image = mmcv.imresize(image, (width, height))
    inputs = np.empty((1, 3, *size), 'float32')
    inputs[:] = padding.reshape(1, 3, 1, 1)
    inputs[0, :, :height, :width] = image.transpose(2, 0, 1)
    return inputs, (height, width)


def inner_size(shape: Size, size: Size) -> Size:
    """Height and width of an image that is resized to fit into a size, at least 1."""
    import mmcv

    ratio = min(size[0] / shape[0], size[1] / shape[1])
    width, height = mmcv.rescale_size((shape[1], shape[0]), ratio)
    return max(1, height), max(1, width)


def padding_of(settings: dict[str, Any]) -> np.ndarray:
    """The colour (3,), in OpenCV's order, that ``data_preprocessor`` settings normalise to zero.

    OpenMMLab pads with zeros after the normalisation.
    """
    mean = np.array(settings.get('mean') or [0.0] * 3, 'float32')
    swapped = settings.get('bgr_to_rgb') or settings.get('rgb_to_bgr')
    return mean[::-1] if swapped else mean
