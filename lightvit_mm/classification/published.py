"""What the published weights of a classifier expect of their images, and what their classes are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log

from lightvit_mm.checkpoints.weights import find_weights
from lightvit_mm.timm_import import import_timm

__all__ = ['readable_names', 'use_published_input']

IMAGENET_CLASSES = 1000
WORDNET_ID = re.compile(r'n\d{8}')


def use_published_input(config: Any, checkpoint: str) -> None:
    """Give a config's test images the size, interpolation and scale of published weights, in place.

    Args:
        config: config of an `ImageClassifier`.
        checkpoint: what is evaluated; if it is not among the published weights, the config stays.
    """
    weights = find_weights(checkpoint)
    if weights is None:
        return
    release = weights.release
    dataset = config.test_dataloader.dataset
    dataset.transform = {
        **dataset.transform,
        'input_size': release.crop,
        # timm rounds the size down, so the half guards against an inexact quotient.
        'crop_pct': release.crop / (release.resize + 0.5),
        'interpolation': release.interpolation,
    }
    config.model.data_preprocessor = {
        'type': 'ImgDataPreprocessor',
        'mean': list(release.mean),
        'std': list(release.std),
        'rgb_to_bgr': release.channels == 'BGR',
    }
    print_log(
        f'{weights}: images as {release.source} measured it, {release.resize} to {release.crop} '
        f'pixels, {release.interpolation}, {release.channels}',
        logger='current',
    )


def readable_names(classes: Sequence[str], number: int) -> tuple[str, ...]:
    """Names to show for the classes of a checkpoint.

    Args:
        classes: those that it names, of which WordNet ids are translated; may be empty.
        number: of the head's outputs. A thousand without names are ImageNet's.
    """
    import_timm()
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    if not classes and number == IMAGENET_CLASSES:
        classes = info.label_names()
    return tuple(
        info.label_name_to_description(name) if WORDNET_ID.fullmatch(name) else name
        for name in classes
    )
