"""Classifying single images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from PIL import Image, ImageDraw, ImageFont

from lightvit_mm.classification.transforms import make_transform

__all__ = ['best_classes', 'classify', 'draw_classes']

SHOWN = 5
MARGIN = 4  # pixels around the text


def classify(model: Any, image: np.ndarray) -> BaseDataElement:
    """Classify an image as an evaluation would.

    Args:
        model: an `ImageClassifier` with its config as ``cfg``.
        image: (H, W, 3), BGR.

    Returns:
        A sample with ``pred_scores`` (num_classes,).
    """
    options = model.cfg.test_dataloader.dataset.transform
    pixels = make_transform(**options)(Image.fromarray(image[..., ::-1]))
    sample = BaseDataElement(metainfo={'ori_shape': image.shape[:2]})
    with torch.inference_mode():
        return model.test_step({'inputs': [pixels], 'data_samples': [sample]})[0]


def best_classes(sample: Any, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Name, number and score of the most likely classes of a sample, the best first."""
    scores = sample.pred_scores.cpu()
    best = scores.argsort(descending=True)[:SHOWN].tolist()
    return [
        {'class': classes[label], 'label': label, 'score': scores[label].item()} for label in best
    ]


def draw_classes(image: np.ndarray, best: Sequence[dict[str, Any]]) -> Image.Image:
    """Write the classes of `best_classes` and their scores on an image (H, W, 3), BGR."""
    picture = Image.fromarray(image[..., ::-1])
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(10, min(picture.size) // 24))
    text = '\n'.join(f'{entry["score"]:.2f} {entry["class"]}' for entry in best)
    box = draw.multiline_textbbox((MARGIN, MARGIN), text, font=font)
    draw.rectangle((0, 0, box[2] + MARGIN, box[3] + MARGIN), fill='white')
    draw.multiline_text((MARGIN, MARGIN), text, fill='black', font=font)
    return picture
