"""Single images for a classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mmengine.structures import BaseDataElement
from PIL import Image

from lightvit_mm.classification.transforms import make_transform

__all__ = ['image_pipeline']


def image_pipeline(transform: Mapping[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Prepare images as an evaluation does.

    Args:
        transform: that of the test data.

    Returns:
        A function from ``img``, (H, W, 3) BGR, to ``inputs`` (3, h, w) and ``data_samples``.
    """
    change = make_transform(**transform)

    def run(data: dict[str, Any]) -> dict[str, Any]:
        sample = BaseDataElement(metainfo={'ori_shape': data['img'].shape[:2]})
        return {
            'inputs': change(Image.fromarray(data['img'][..., ::-1])),
            'data_samples': sample,
        }

    return run
