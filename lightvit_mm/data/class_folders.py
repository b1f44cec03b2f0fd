"""Folders of images for each class: checking them, and training on one's own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightvit_mm.data.class_archives import ArchiveChecks
from lightvit_mm.data.class_reader import is_archive
from lightvit_mm.data.config import class_heads, only_dataset
from lightvit_mm.data.findings import (
    ERROR,
    NOTE,
    WARNING,
    DataError,
    Finding,
    Report,
    some_of,
)
from lightvit_mm.data.imagenet_files import images_path
from lightvit_mm.data.images import look_at_image
from lightvit_mm.errors import ConfigError, MissingFileError, UserError
from lightvit_mm.files import IMAGE_SUFFIXES

__all__ = ['ClassFolderChecks', 'use_own_class_folders']

# Those of timm's readers.
SUFFIXES = ('.png', '.jpg', '.jpeg')
NO_FOLDER = ('', '.')  # the class that timm gives to images at the top of an archive


@dataclass
class _Tree:
    """The files below a folder.

    Attributes:
        images: paths of images by class, which is the name of their folder.
        places: the folders that a class is in.
        loose: images in no folder of a class.
        others: other files.
        empty: folders without any image or folder.
    """

    images: dict[str, list[str]] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


def _walk(root: Path) -> _Tree:
    tree = _Tree()
    for folder, below, files in os.walk(root, followlinks=True):
        below.sort()
        paths = [os.path.join(folder, file) for file in sorted(files)]
        images = [path for path in paths if path.lower().endswith(SUFFIXES)]
        tree.others += [path for path in paths if not path.lower().endswith(SUFFIXES)]
        if os.path.samefile(folder, root):
            tree.loose += images
        elif images:
            name = os.path.basename(folder)
            tree.images.setdefault(name, []).extend(images)
            tree.places.setdefault(name, []).append(folder)
        elif not below:
            tree.empty.append(folder)
    return tree


class _ImageChecks:
    """The checks that open images, made one by one: there can be millions.

    Args:
        check: takes the class and the path of an image.
        tree: the images.
    """

    def __init__(self, check: Callable[[str, str], Iterator[Finding]], tree: _Tree) -> None:
        self.check, self.tree = check, tree

    def __len__(self) -> int:
        return sum(map(len, self.tree.images.values()))

    def __iter__(self) -> Iterator[Callable[[], Iterator[Finding]]]:
        for name, images in self.tree.images.items():
            yield from (partial(self.check, name, image) for image in images)


class ClassFolderChecks:
    """Checks of all data sets of a classifier's config, which are compared with each other."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.classes: dict[str, list[str]] = {}  # of the folders, by part
        self.contents: dict[str, tuple[str, str, str]] = {}  # part, class and path, by digest

    def look_at(self, part: str, dataset: Mapping[str, Any]) -> tuple[Report, Any]:
        """A report made from the names of the files, and the checks that open images."""
        path = images_path(dataset)
        report = Report(part, str(path))

        def add(severity: str, kind: str, detail: str = '') -> None:
            report.findings.append(Finding(severity, kind, report.source, '', detail))

        named = [str(name) for name in (dataset.get('metainfo') or {}).get('classes') or ()]
        if is_archive(path):
            about_classes = partial(self._judge_classes, part, report, named)
            return report, ArchiveChecks(path, about_classes, partial(self._look_at_image, part))
        tree = _walk(path)
        report.findings += self._judge_classes(
            part, report, named, {name: len(paths) for name, paths in tree.images.items()}
        )
        for image in tree.loose:
            report.findings.append(Finding(ERROR, 'image outside the folders of classes', image))
        for folder in tree.empty:
            report.findings.append(Finding(WARNING, 'folder without images', folder))
        for name, places in tree.places.items():
            if len(places) > 1:
                add(WARNING, 'folders of one name, read as one class', f'{name}: {some_of(places)}')
        unread = [file for file in tree.others if file.lower().endswith(IMAGE_SUFFIXES)]
        if unread:
            add(WARNING, 'images in a format that is not read', some_of(unread, 3))
        if others := sorted(set(tree.others) - set(unread)):
            add(NOTE, 'files that are no images', some_of(others, 3))
        return report, _ImageChecks(partial(self._look_at_image, part), tree)

    def _judge_classes(
        self, part: str, report: Report, named: list[str], numbers: Mapping[str, int]
    ) -> list[Finding]:
        """Compare classes with those of the config, or of the training data, and with the head.

        Args:
            part: of the config.
            report: of the data set; gets the counts.
            named: the classes of the config, if it names them.
            numbers: of the images of each class.
        """
        findings: list[Finding] = []

        def add(severity: str, kind: str, detail: str = '') -> None:
            findings.append(Finding(severity, kind, report.source, '', detail))

        found = sorted(set(numbers) - set(NO_FOLDER))
        self.classes[part] = found
        report.counts = {'images': sum(numbers.values()), 'classes': len(found)}
        if not found:
            add(ERROR, 'no folder of a class with images', f'expected {report.source}/CLASS/1.jpg')
        if loose := sum(numbers.get(name, 0) for name in NO_FOLDER):
            add(ERROR, 'image outside the folders of classes', f'{loose} in the archive')
        for name, head in class_heads(self.config['model']):
            number = len(named or found)
            if head['num_classes'] != number and found:
                add(
                    ERROR,
                    'head for another number of classes',
                    f'{name}.num_classes is {head["num_classes"]}, there are {number} classes; '
                    '--train-data DIR --val-data DIR sets it',
                )
        expected, source = named, 'the config'
        if not named and part != 'train':
            expected, source = self.classes.get('train', []), 'the training data'
        if strange := sorted(set(found) - set(expected)) if expected else []:
            add(ERROR, f'class that {source} does not have', some_of(strange))
        if missing := sorted(set(expected) - set(found)):
            # Without names in the config, classes are numbered by the folders of each part.
            kind = f'class of {source} without images'
            add(WARNING if named else ERROR, kind, some_of(missing))
        return findings

    def _look_at_image(
        self, part: str, name: str, path: str, shown: str | None = None
    ) -> Iterator[Finding]:
        seen = look_at_image(path, _load)
        shown = shown or path
        for severity, kind, detail in seen.judgements:
            yield Finding(severity, kind, shown, '', detail)
        if seen.size is None:
            return
        digest = hashlib.sha1(Path(path).read_bytes()).hexdigest()
        other_part, other_name, other = self.contents.setdefault(digest, (part, name, shown))
        if other_name != name:
            yield Finding(WARNING, 'same image in two classes', shown, '', f'also {other}')
        elif other != shown:
            kind = 'same image twice'
            if other_part != part:
                kind = f'image of {other_part} in {part} too'
            yield Finding(WARNING, kind, shown, '', f'also {other}')


def _load(data: dict) -> dict:
    """Load an image as timm's reader does."""
    with Image.open(data['img_path']) as image:
        return {'img': np.asarray(image.convert('RGB'))}


def use_own_class_folders(
    config: Any,
    train_data: Sequence[str] | None = None,
    val_data: Sequence[str] | None = None,
    classes_from: str | None = None,
) -> None:
    """Point the config of a classifier at other images and classes, in place.

    The classes are the folders to train on; without those, what the config names, else the folders
    to validate on. The change is printed.

    Args:
        config: config of an `ImageClassifier`.
        train_data: the folder to train on, with a folder for each class.
        val_data: the folder to validate and test on.
        classes_from: not for classifiers.

    Raises:
        UserError: there is no such folder, it has no classes, or the config cannot use them.
    """
    if classes_from:
        raise UserError(
            f'--classes-from {classes_from}: the classes of a classifier are the folders of '
            '--train-data'
        )
    roots = {
        '--train-data': (('train',), _folder('--train-data', train_data)),
        '--val-data': (('val', 'test'), _folder('--val-data', val_data)),
    }
    classes: list[str] = []
    for option, (parts, root) in roots.items():
        if root is None:
            continue
        for part in parts:
            dataset = only_dataset(config, part, option)
            named = list((dataset.get('metainfo') or {}).get('classes') or ())
            dataset.update(data_root=f'{root.parent}/', data_prefix={'img': root.name})
            if option == '--val-data' and named:
                classes = classes or named
        classes = classes or sorted(_walk(root).images)
        if not classes:
            raise DataError(f'{option} {root}: no images; expected {root}/CLASS/1.jpg')
    for part in ('train', 'val', 'test'):
        if config.get(f'{part}_dataloader'):
            only_dataset(config, part, '--train-data')['metainfo'] = {'classes': tuple(classes)}
    _set_classes(config, len(classes))
    if os.environ.get('RANK', '0') == '0':
        print(f'{len(classes)} classes: {some_of(classes, 10)}')
    # It describes the original data.
    config.pop('how_to_get_data', None)


def _set_classes(config: Any, number: int) -> None:
    if config.model.get('teacher') and config.model.head.num_classes != number:
        raise ConfigError(
            f'the teacher of {config.filename} knows {config.model.head.num_classes} classes, your '
            f'data have {number}: use the config without _distill'
        )
    config.model.head.num_classes = number


def _folder(option: str, given: Sequence[str] | None) -> Path | None:
    if not given:
        return None
    if len(given) > 1:
        raise UserError(
            f'{option} {" ".join(given)}: a classifier takes one folder, with a folder for each '
            'class'
        )
    folder = Path(given[0]).expanduser()
    if not folder.is_dir():
        raise MissingFileError(f'{option} DIR: {folder} is not a folder')
    return Path(os.path.abspath(folder)) if folder.name in ('', '..') else folder
