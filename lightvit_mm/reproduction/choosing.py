"""Accuracy and latency of whole models, to choose a config by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightvit_mm.errors import UserError
from lightvit_mm.reproduction.published import Row
from lightvit_mm.reproduction.zoo import DATASETS, INPUTS, split_name

# Milliseconds an image.
Latencies = dict[tuple[str, tuple[int, ...]], float]

# In the first version of its paper, the name of repvit_m1_1.
SAME = 'repvit_m2'
METRICS = {'bbox_mAP': 'box AP', 'segm_mAP': 'mask AP', 'mIoU': 'mIoU'}
PEER = 'others'


@dataclass(frozen=True)
class Point:
    """A model with its accuracy and latency.

    Attributes:
        model: name of its config, or of a peer.
        head, family, arch: the parts of that name; head and family of a peer are `PEER`.
        accuracy: in percent.
        milliseconds: latency of the whole model.
        size: height and width of the image that it refers to.
        note: where the accuracy comes from, if that is not said for the whole panel.
    """

    model: str
    head: str
    family: str
    arch: str
    accuracy: float
    milliseconds: float
    size: tuple[int, ...]
    note: str = ''

    @property
    def is_peer(self) -> bool:
        """Whether it is not this package's."""
        return self.family == PEER


@dataclass(frozen=True)
class Panel:
    """Models whose accuracy may be compared.

    Attributes:
        title: the task and the data.
        metric: name of the accuracy.
        about: how the models were trained; empty if they were published.
        points: the fastest first.
        commands: the command that gives the accuracy of each model; empty if published.
    """

    title: str
    metric: str
    about: str = ''
    points: list[Point] = field(default_factory=list)
    commands: dict[str, str] = field(default_factory=dict)

    def best(self, milliseconds: float) -> Point | None:
        """Our most accurate model within that latency, the fastest of equals."""
        return _best(p for p in self.points if not p.is_peer and p.milliseconds <= milliseconds)

    def rival(self, milliseconds: float) -> Point | None:
        """The most accurate peer within that latency, if it is more accurate than `best`."""
        ours = self.best(milliseconds)
        peer = _best(p for p in self.points if p.is_peer and p.milliseconds <= milliseconds)
        return None if ours and peer and peer.accuracy <= ours.accuracy else peer

    def front(self) -> set[str]:
        """Models than which no other is both at least as fast and at least as accurate."""
        return {
            point.model
            for point in self.points
            if not any(
                other is not point
                and other.milliseconds <= point.milliseconds
                and other.accuracy >= point.accuracy
                for other in self.points
            )
        }


def latencies(benchmarks: Iterable[Mapping[str, Any]]) -> Latencies:
    """Milliseconds of whole models in PyTorch, fp32, by name and (height, width).

    Args:
        benchmarks: contents of files that ``tools/benchmark.py --json`` writes.

    Raises:
        UserError: they are of backbones.
    """
    found: Latencies = {}
    for benchmark in benchmarks:
        for result in benchmark['results']:
            size = tuple(result['shape'][2:])
            for row in result['rows']:
                if 'model' not in row:
                    raise UserError(
                        'the latencies must be of whole models: '
                        'python tools/benchmark.py CONFIG... --json LATENCY.json'
                    )
                if row['dtype'] == 'fp32' and row['how'] in ('', 'channels_last'):
                    found[row['model'], size] = 1e3 * row['timing']['median']
    return found


def read_own(file: str | Path) -> dict[str, Any]:
    """The content of docs/choose.yml, which describes itself.

    Raises:
        UserError: a row lacks a field, or is of a set that the file does not describe.
    """
    content = yaml.safe_load(Path(file).read_text())
    for row in content['rows']:
        missing = {'config', 'set', 'accuracy', 'command'} - row.keys()
        if missing:
            raise UserError(f'{file}: {row} lacks {", ".join(sorted(missing))}')
        if row['set'] not in content['sets']:
            raise UserError(
                f'{file}: {row["config"]} is of the set {row["set"]}; there are '
                + (', '.join(content['sets']) or 'none')
            )
    return content


def published_panels(
    rows: Iterable[Row], peers: Iterable[Mapping[str, Any]], latency: Latencies
) -> list[Panel]:
    """A panel for each data set and metric, of the published rows whose latency is known."""
    panels: dict[tuple[str, str], Panel] = {}

    def add(dataset: str, published: Mapping[str, float], **fields: Any) -> None:
        for metric, value in published.items():
            title = f'{_task(metric)}, {DATASETS[dataset]}'
            panel = panels.setdefault((dataset, metric), Panel(title, METRICS[metric]))
            panel.points.append(Point(accuracy=value, **fields))

    for row in rows:
        head, family, arch, dataset = split_name(row.config)
        size = INPUTS.get(head) or INPUTS[dataset]
        if (row.config, size) in latency and f'{family}_{arch}' != SAME:
            add(
                dataset,
                row.published,
                model=row.config,
                head=head,
                family=family,
                arch=arch,
                milliseconds=latency[row.config, size],
                size=size,
                note='recalled' if row.confidence == 'recalled' else '',
            )
    # Peers stand beside ours, not alone.
    for peer in peers:
        size = tuple(peer['input'])
        known = {(dataset, metric) for dataset, metric in panels if dataset == peer['dataset']}
        published = {m: v for m, v in peer['published'].items() if (peer['dataset'], m) in known}
        if (peer['model'], size) in latency:
            add(
                peer['dataset'],
                published,
                model=peer['model'],
                head=PEER,
                family=PEER,
                arch=peer['model'],
                milliseconds=latency[peer['model'], size],
                size=size,
            )
    return _sorted(panels.values())


def own_panels(own: Mapping[str, Any], latency: Latencies) -> list[Panel]:
    """A panel for each of our sets, of the rows whose latency is known."""
    panels: dict[str, Panel] = {}
    for row in own['rows']:
        described = own['sets'][row['set']]
        sizes = [size for name, size in latency if name == row['config']]
        size = tuple(row['input']) if 'input' in row else (sizes or [()])[0]
        if size not in sizes:
            continue
        panel = panels.setdefault(
            row['set'], Panel(described['title'], described['metric'], described['about'])
        )
        head, family, arch, _ = split_name(row['config'])
        panel.points.append(
            Point(
                row['config'],
                head,
                family,
                arch,
                row['accuracy'],
                latency[row['config'], size],
                size,
            )
        )
        panel.commands[row['config']] = row['command']
    return _sorted(panels.values())


def _best(points: Iterable[Point]) -> Point | None:
    return max(points, key=lambda point: point.accuracy, default=None)


def _task(metric: str) -> str:
    return {'bbox_mAP': 'Boxes', 'segm_mAP': 'Masks of objects', 'mIoU': 'Segmentation'}[metric]


def _sorted(panels: Iterable[Panel]) -> list[Panel]:
    for panel in panels:
        panel.points.sort(key=lambda point: point.milliseconds)
    return list(panels)
