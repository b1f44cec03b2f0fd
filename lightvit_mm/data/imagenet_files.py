"""The official files of ImageNet-1k: where they are, and the classes of the validation images."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightvit_mm.data.findings import DataError

__all__ = ['DEVKIT', 'find_images', 'images_path', 'validation_classes']

DEVKIT = 'ILSVRC2012_devkit_t12.tar.gz'
TRUTH = 'data/ILSVRC2012_validation_ground_truth.txt'
SYNSETS = 'data/meta.mat'
CLASSES = 1000  # the first synsets; the others are their parents


def find_images(root: str, part: str) -> Path:
    """The images of a part of a data set, in a folder or an archive.

    Args:
        root: the folder of the data set.
        part: the name of a folder or an archive in it; ``'train'`` also stands for ``train.tar``
            and for the official ``ILSVRC2012_img_train.tar``.

    Returns:
        What exists; if nothing does, the folder.
    """
    folder = Path(root, part)
    names = (folder.name, f'{folder.name}.tar', f'ILSVRC2012_img_{folder.name}.tar')
    found = [folder.with_name(name) for name in names if folder.with_name(name).exists()]
    return found[0] if found else folder


def images_path(dataset: Mapping[str, Any]) -> Path:
    """`find_images` for the config of a `ClassFolders`."""
    return find_images(dataset.get('data_root') or '', (dataset.get('data_prefix') or {})['img'])


def validation_classes(devkit: Path) -> dict[str, str]:
    """The WordNet id of every image of the official validation archive, by its name without suffix.

    Raises:
        DataError: the development kit is missing or damaged.
    """
    from scipy.io import loadmat  # type: ignore[import-untyped]

    if not devkit.is_file():
        raise DataError(
            f'the official validation archive names no classes; its development kit does: put '
            f'{DEVKIT} into {devkit.parent}'
        )
    content: dict[str, bytes] = {}
    try:
        with tarfile.open(devkit) as archive:
            for member in archive:
                for name in (TRUTH, SYNSETS):
                    if member.name.endswith(name):
                        file = archive.extractfile(member)
                        content[name] = file.read() if file else b''
        synsets = loadmat(io.BytesIO(content[SYNSETS]), squeeze_me=True)['synsets']
        names = {int(synset[0]): str(synset[1]) for synset in synsets[:CLASSES]}
        truth = [names[int(number)] for number in content[TRUTH].split()]
    except (KeyError, OSError, ValueError, tarfile.TarError) as error:
        raise DataError(
            f'{devkit} is not the development kit of ILSVRC2012: {type(error).__name__}: {error}'
        ) from error
    return {f'ILSVRC2012_val_{i:08}': name for i, name in enumerate(truth, 1)}
