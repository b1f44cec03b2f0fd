"""Images in a folder for each class, read and augmented by timm."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from mmengine.structures import BaseDataElement
from PIL import Image
from torch.utils.data import Dataset

from lightvit_mm.classification.transforms import make_transform
from lightvit_mm.data.findings import DataError
from lightvit_mm.data.imagenet_files import DEVKIT, find_images, validation_classes
from lightvit_mm.registry import DATASETS
from lightvit_mm.timm_import import import_timm

__all__ = ['ClassFolders']


@DATASETS.register_module()
class ClassFolders(Dataset):
    """Images whose class is the name of their folder, as ImageNet's.

    The images are in a folder, in one archive (``.tar``), in a folder of archives, or in an archive
    of archives as the official one. Classes are in natural order of their names.

    Args:
        data_prefix: ``dict(img=...)``, folder or archive in ``data_root``, see `find_images`.
        transform: arguments of timm's ``create_transform``. Images stay bytes: the model
            normalises, erases and mixes them on its device.
        data_root: folder of the data set.
        sizes: several sizes of images, of which a `MultiScaleBatchSampler` chooses one for each
            batch; in place of ``transform['input_size']``.
        metainfo: ``dict(classes=...)``, names in the order of their numbers, if it is not that of
            the folders of this part.

    Raises:
        DataError: there are no images, or their classes are unknown.
    """

    def __init__(
        self,
        data_prefix: Mapping[str, str],
        transform: Mapping[str, Any],
        data_root: str = '',
        sizes: Sequence[int] = (),
        metainfo: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = find_images(data_root, data_prefix['img'])
        classes = (metainfo or {}).get('classes')
        self.reader, names = _open(self.path, list(classes) if classes else None)
        self.metainfo = {'classes': tuple(names)}
        options = [{'input_size': size} for size in sizes] or [{}]
        self.transforms = [make_transform(**{**transform, **option}) for option in options]
        # A runner of this package wraps it, and then an error names the image.
        self.pipeline = Compose([self._read])

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        """``inputs``, bytes (3, H, W) in RGB, and ``data_samples`` with ``gt_label``."""
        number, choice = index if isinstance(index, tuple) else (index, 0)
        return self.pipeline({'number': number, 'choice': choice, 'img_path': self.name(number)})

    def name(self, number: int) -> str:
        """The file of an image, or its name in the archive."""
        return str(self.reader.filename(number, absolute=True))

    def label(self, number: int) -> int:
        """The number of the class of an image, without reading it."""
        targets = getattr(self.reader, 'targets', None)
        return int(self.reader.samples[number][1] if targets is None else targets[number])

    def open(self, number: int) -> Any:
        """An image as it is stored, a file opened for reading."""
        return self.reader[number][0]

    def _read(self, data: dict[str, Any]) -> dict[str, Any]:
        number = data['number']
        with self.open(number) as file, Image.open(file) as image:
            size = image.size
            pixels = self.transforms[data['choice']](image.convert('RGB'))
        sample = BaseDataElement(metainfo={'img_path': data['img_path'], 'ori_shape': size[::-1]})
        sample.gt_label = self.label(number)
        return {'inputs': pixels, 'data_samples': sample}


def _open(path: Path, classes: list[str] | None) -> tuple[Any, list[str]]:
    """timm's reader for the images in ``path``, and the names of the classes."""
    import_timm()
    from timm.data.readers.reader_image_folder import ReaderImageFolder
    from timm.data.readers.reader_image_in_tar import ReaderImageInTar

    numbers: Any = {name: number for number, name in enumerate(classes)} if classes else ''
    if not path.exists():
        raise DataError(f'{path} does not exist; expected a folder or an archive of images')
    is_archive = path.suffix == '.tar' or any(path.glob('*.tar'))
    try:
        if not is_archive:
            reader: Any = ReaderImageFolder(str(path), numbers)
            found = reader.class_to_idx
        else:
            # timm keeps the index of large archives beside them.
            cache = None if os.access(path.parent, os.W_OK) else False
            flat = path.name == 'ILSVRC2012_img_val.tar'
            reader = ReaderImageInTar(str(path), '' if flat else numbers, cache_tarinfo=cache)
            found = reader.class_name_to_idx
    except (AssertionError, RuntimeError, ValueError) as error:
        raise DataError(
            f'{path}: no images are left: {error}. Expected a folder for each class, as in '
            f'{path}/cat/1.jpg' + (f', of {", ".join(classes[:5])}' if classes else '')
        ) from error
    if is_archive and flat:
        names = validation_classes(path.with_name(DEVKIT))
        found = numbers or {name: i for i, name in enumerate(sorted(set(names.values())))}
        reader.targets = np.array([found[names[Path(s[0].name).stem]] for s in reader.samples])
    return reader, sorted(found, key=found.__getitem__)
