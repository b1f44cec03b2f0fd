"""timm's ``create_transform``, for the Pillow that is installed."""

from __future__ import annotations

from typing import Any

from PIL import Image

from lightvit_mm.timm_import import import_timm

__all__ = ['make_transform']


def make_transform(**options: Any) -> Any:
    """What turns an image of Pillow into bytes (3, H, W) in RGB.

    Args:
        options: arguments of timm's ``create_transform``.
    """
    import_timm()
    from timm.data import auto_augment, create_transform

    auto_augment.NAME_TO_OP['PosterizeIncreasing'] = _posterize
    return create_transform(**options, use_prefetcher=True)


def _posterize(image: Image.Image, bits_to_keep: int, **options: Any) -> Image.Image:
    """timm's operation, which keeps no bit at the highest magnitude; Pillow 13 refuses that."""
    from timm.data.auto_augment import posterize

    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    return posterize(image, bits_to_keep, **options)
