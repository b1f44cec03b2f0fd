"""Checks of a segmentor's images and label maps, file by file and all together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightvit_mm.data.findings import ERROR, WARNING, Finding, Report
from lightvit_mm.data.images import CONVERT, SUFFIXES, Load, look_at_image, look_at_label_map

SOME = 8  # pairs that are opened before every run


class LabelMaps(list[Callable[[], Iterator[Finding]]]):
    """The checks of all pairs of an image and its label map, one call for each.

    Args:
        samples: what the data set passes to its pipeline; the images exist.
        load, load_labels: the transforms of the pipeline that load image and label map.
        classes: names of the classes.
        ignored: the label that is neither learnt nor evaluated.
        report: of this data set.
    """

    def __init__(
        self,
        samples: Sequence[dict],
        load: Load,
        load_labels: Load,
        classes: tuple[str, ...],
        ignored: int,
        report: Report,
    ) -> None:
        look = partial(self._look_at_pair, load=load, load_labels=load_labels)
        super().__init__(partial(look, sample) for sample in samples)
        self.classes, self.ignored, self.report = classes, ignored, report
        self.present: set[int] = set()  # labels in the label maps looked at

    def look_at_some(self) -> Iterator[Finding]:
        """Look at `SOME` pairs from the whole list, and at no other."""
        for number in sorted({len(self) * i // SOME for i in range(SOME)} if self else ()):
            yield from self[number]()
        if self._are_binary():
            yield self._finding(WARNING, *self._binary())

    def judge_classes(self) -> Iterator[Finding]:
        """Judge which classes there are, after looking at all pairs."""
        if not self.present:  # none could be read
            return
        if self._are_binary():
            yield self._finding(ERROR, *self._binary())
            return
        absent = [name for label, name in enumerate(self.classes) if label not in self.present]
        if len(absent) == len(self.classes):
            yield self._finding(ERROR, 'label maps without any class', f'{sorted(self.present)}')
        elif absent:
            consequence = (
                'it cannot be learnt'
                if self.report.part == 'train'
                else 'its IoU is 0 once a pixel is predicted as it, otherwise mIoU leaves it out'
            )
            names = ', '.join(absent[:10]) + (', …' if len(absent) > 10 else '')
            yield self._finding(WARNING, 'class without a pixel', f'{names}: {consequence}')

    def _look_at_pair(self, sample: dict, load: Load, load_labels: Load) -> Iterator[Finding]:
        seen = look_at_image(sample['img_path'], load)
        yield from (Finding(s, kind, sample['img_path'], '', d) for s, kind, d in seen.judgements)
        path = sample.get('seg_map_path')
        if not path or not os.path.exists(path):  # already reported
            return
        labels, judged = look_at_label_map(
            sample, load_labels, seen.size, len(self.classes), self.ignored
        )
        self.present.update(labels)
        yield from (Finding(severity, kind, path, '', detail) for severity, kind, detail in judged)

    def _are_binary(self) -> bool:
        return len(self.classes) == 2 and self.present == {0, 255} and self.ignored == 255

    def _binary(self) -> tuple[str, str]:
        detail = (
            f'255 is not learnt, so that all would be {self.classes[0]}. If 255 means '
            f'{self.classes[1]}: {CONVERT}, with the colours 0 0 0 and 255 255 255'
        )
        return 'label maps with the labels 0 and 255 alone', detail

    def _finding(self, severity: str, kind: str, detail: str) -> Finding:
        return Finding(severity, kind, self.report.source, '', detail)


def find_partners(dataset: Any, samples: Sequence[dict]) -> Iterator[Finding]:
    """Find images and label maps that are missing or that mmseg leaves out, by their names.

    Args:
        dataset: mmseg's data set.
        samples: its list of images and label maps.
    """
    names: dict[str, frozenset[str]] = {}
    for sample in samples:
        for key, kind in (('img_path', 'image file'), ('seg_map_path', 'label map')):
            folder, name = os.path.split(sample.get(key, ''))
            if folder not in names:
                names[folder] = frozenset(os.listdir(folder) if os.path.isdir(folder) else ())
            if key in sample and name not in names[folder]:
                detail = f'of {sample["img_path"]}' if key == 'seg_map_path' else ''
                yield Finding(ERROR, f'{kind} missing', sample[key], '', detail)
    if os.path.isfile(dataset.ann_file):
        return
    known = {Path(s[key]) for s in samples for key in ('img_path', 'seg_map_path') if key in s}
    suffixes = tuple(suffix for group in SUFFIXES.values() for suffix in group)
    for file in sorted(Path(dataset.data_prefix['img_path']).rglob('*')):
        if file.suffix.lower() in suffixes and file not in known:
            kind, detail = (
                'image of another suffix, left out',
                f'img_suffix is {dataset.img_suffix!r}',
            )
            yield Finding(WARNING, kind, str(file), '', detail)
    labels = dataset.data_prefix.get('seg_map_path')
    for file in sorted(Path(labels).rglob('*')) if labels else ():
        if file.name.endswith(dataset.seg_map_suffix) and file not in known:
            yield Finding(WARNING, 'label map without an image, left out', str(file))
