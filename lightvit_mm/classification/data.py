"""Images in a folder for each class, read and augmented by timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dataset import Compose
from mmengine.structures import BaseDataElement
from PIL import Image
from torch.utils.data import Dataset

from lightvit_mm.classification.transforms import make_transform
from lightvit_mm.data.class_reader import open_images
from lightvit_mm.data.imagenet_files import find_images
from lightvit_mm.registry import DATASETS

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
        self.reader, names = open_images(self.path, list(classes) if classes else None)
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
