"""timm's readers for images by class, in folders and in archives."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from lightvit_mm.data.findings import DataError
from lightvit_mm.data.imagenet_files import DEVKIT, validation_classes
from lightvit_mm.timm_import import import_timm

__all__ = ['is_archive', 'open_images']


def is_archive(path: Path) -> bool:
    """Whether images are in an archive, or in a folder of archives."""
    return path.suffix == '.tar' or any(path.glob('*.tar'))


def open_images(path: Path, classes: list[str] | None) -> tuple[Any, list[str]]:
    """timm's reader for the images in ``path``, and the names of the classes.

    Args:
        path: a folder, an archive, a folder of archives, or an archive of archives.
        classes: those that are read, in the order of their numbers; None reads all.

    Raises:
        DataError: there is nothing at ``path``, no images of the classes, or no whole archive.
    """
    import_timm()
    from timm.data.readers.reader_image_folder import ReaderImageFolder
    from timm.data.readers.reader_image_in_tar import ReaderImageInTar

    numbers: Any = {name: number for number, name in enumerate(classes)} if classes else ''
    if not path.exists():
        raise DataError(f'{path} does not exist; expected a folder or an archive of images')
    flat = path.name == 'ILSVRC2012_img_val.tar'
    try:
        if not is_archive(path):
            reader: Any = ReaderImageFolder(str(path), numbers)
            found = reader.class_to_idx
        else:
            # timm keeps the index of large archives beside them.
            cache = None if os.access(path.parent, os.W_OK) else False
            reader = ReaderImageInTar(str(path), '' if flat else numbers, cache_tarinfo=cache)
            found = reader.class_name_to_idx
    except tarfile.TarError as error:
        raise DataError(f'{path}: an archive is damaged or cut short: {error}') from error
    except (AssertionError, RuntimeError, ValueError) as error:
        raise DataError(
            f'{path}: no images are left: {error}. Expected a folder for each class, as in '
            f'{path}/cat/1.jpg' + (f', of {", ".join(classes[:5])}' if classes else '')
        ) from error
    if flat:
        names = validation_classes(path.with_name(DEVKIT))
        found = numbers or {name: i for i, name in enumerate(sorted(set(names.values())))}
        reader.targets = np.array([found[names[Path(s[0].name).stem]] for s in reader.samples])
    return reader, sorted(found, key=found.__getitem__)
