"""The contact sheet of tools/browse_data.py, which shows what a model sees in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import set_random_seed
from PIL import ExifTags, Image, ImageDraw

from lightvit_mm.data.checking import check_before_run
from lightvit_mm.data.config import data_paths
from lightvit_mm.engine.broken_samples import NamingRunner
from lightvit_mm.engine.drawing import Colour, draw_labels, draw_objects, font, palette_of
from lightvit_mm.engine.objects import from_instances
from lightvit_mm.errors import UserError
from lightvit_mm.files import check_output_file, whole_file

CELL = 320  # pixels, the longer side of an image on the sheet
GAP = 8
CAPTION = 20  # pixels below an image
SUFFIXES = ('.jpg', '.jpeg', '.png')
SOFTWARE = 'lightvit_mm browse_data'  # in the EXIF data of a sheet
MADE_HERE = SOFTWARE.encode()


@dataclass
class Seen:
    """An image as the model gets it.

    Attributes:
        pixels: (H, W, 3) RGB, 0 to 255, with padding.
        lowest, highest: range of the values that the model gets.
        sample: its annotations after augmentation.
    """

    pixels: np.ndarray
    lowest: float
    highest: float
    sample: Any


def browse(config: Config, out: str | Path, number: int = 16) -> str:
    """Draw training images with their annotations, after pipeline and data preprocessor.

    Args:
        config: config of the model, from `load_config`.
        out: the JPEG or PNG file to write.
        number: number of images; fewer if the data set is smaller.

    Returns:
        One line that describes the sheet.

    Raises:
        UserError: the data are missing or unusable, or ``out`` has another suffix, is something
            else or cannot be written.
    """
    file = Path(out)
    if file.suffix.lower() not in SUFFIXES:
        raise UserError(f'--out {out}: give a file that ends in {", ".join(SUFFIXES)}')
    check_output_file(file, '--out', MADE_HERE, data_paths(config))
    if number < 1:
        raise UserError(f'--number {number}: give at least 1')
    check_before_run(config, ('train',))
    init_default_scope(config.default_scope)
    seen, dataset = _training_images(config, number)
    classes = tuple(dataset.metainfo['classes'])
    colours = palette_of(dataset.metainfo)
    side = math.ceil(math.sqrt(len(seen)))
    rows = math.ceil(len(seen) / side)
    step = CELL + GAP
    size = side * step + GAP, rows * (step + CAPTION) + GAP
    sheet = Image.new('RGB', size, 'white')
    draw = ImageDraw.Draw(sheet)
    for index, image in enumerate(seen):
        x, y = GAP + index % side * step, GAP + index // side * (step + CAPTION)
        sheet.paste(_drawn(image, classes, colours), (x, y))
        height, width = image.pixels.shape[:2]
        caption = f'{Path(image.sample.img_path).name}  {width} x {height}'
        draw.text((x, y + CELL + 3), caption, fill='black', font=font())
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = SOFTWARE
    with whole_file(file) as part:
        sheet.save(part, Image.registered_extensions()[file.suffix.lower()], exif=exif)
    sizes = {image.pixels.shape[:2] for image in seen}
    return (
        f'{len(seen)} of {len(dataset)} training images, {_range(w for _, w in sizes)} x '
        f'{_range(h for h, _ in sizes)} px as the model gets them, values '
        f'{min(i.lowest for i in seen):.2f} to {max(i.highest for i in seen):.2f}: {file}'
    )


def _training_images(config: Config, number: int) -> tuple[list[Seen], Any]:
    preprocessing = config.model.get('data_preprocessor') or config.get('data_preprocessor')
    if not preprocessing:
        raise UserError(f'{config.filename} has no model.data_preprocessor')
    preprocessor = MODELS.build(preprocessing)
    settings = {**config.train_dataloader, 'num_workers': 0, 'persistent_workers': False}
    settings.pop('prefetch_factor', None)
    seed = config.get('randomness', {}).get('seed') or 0
    set_random_seed(seed)
    loader = NamingRunner.build_dataloader(settings, seed)
    seen: list[Seen] = []
    for batch in loader:
        batch = preprocessor(batch, training=True)
        for values, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
            pixels = _pixels(values, preprocessing)
            seen.append(Seen(pixels, float(values.min()), float(values.max()), sample))
        if len(seen) >= number:
            break
    if not seen:
        raise UserError('the training dataloader of this config yields no batch')
    return seen[:number], loader.dataset


def _pixels(values: torch.Tensor, preprocessing: Any) -> np.ndarray:
    """A (3, H, W) input as an (H, W, 3) RGB image: normalisation and channel order undone."""
    channels = values.float().permute(1, 2, 0).numpy()
    if preprocessing.get('mean') is not None:
        channels = channels * np.array(preprocessing['std']) + np.array(preprocessing['mean'])
    if not preprocessing.get('bgr_to_rgb'):
        # mmcv loads images as BGR.
        channels = channels[..., ::-1]
    return np.ascontiguousarray(channels.round().clip(0, 255).astype(np.uint8))


def _drawn(image: Seen, classes: Sequence[str], colours: Sequence[Colour]) -> Image.Image:
    if 'gt_sem_seg' in image.sample:
        labels = image.sample.gt_sem_seg.data.squeeze(0).numpy()
        return draw_labels(image.pixels, labels, classes, colours, CELL)
    objects = from_instances(image.sample.gt_instances)
    return draw_objects(image.pixels, objects, classes, colours, CELL)


def _range(numbers: Any) -> str:
    ordered = sorted(set(numbers))
    return f'{ordered[0]}' if len(ordered) == 1 else f'{ordered[0]}-{ordered[-1]}'
