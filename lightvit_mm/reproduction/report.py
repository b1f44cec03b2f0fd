"""The report of a reproduction: published, ours, the difference, and the curves over each other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lightvit_mm.reproduction.history import History, read_history
from lightvit_mm.reproduction.published import Row

# How far a figure may be off, in points: the spread of repeated trainings.
TOLERANCES = {'bbox_mAP': 0.3, 'segm_mAP': 0.3, 'mIoU': 0.5}


@dataclass(frozen=True)
class Comparison:
    """One figure of a row: ``ours`` is None where the run failed or is missing."""

    config: str
    metric: str
    published: float
    ours: float | None

    @property
    def verdict(self) -> str:
        """Whether ours is inside the tolerance of the published figure."""
        if self.ours is None:
            return 'not there'
        inside = abs(self.ours - self.published) <= TOLERANCES[self.metric] + 1e-9
        return f'{"inside" if inside else "OUTSIDE"} {TOLERANCES[self.metric]}'


def compare(row: Row, ours: dict[str, float]) -> list[Comparison]:
    """Every published figure of a row against ours."""
    return [
        Comparison(row.config, metric, value, ours.get(metric))
        for metric, value in row.published.items()
    ]


def write_report(
    folder: Path, results: list[tuple[Row, dict[str, float]]], command: str
) -> list[Comparison]:
    """Write ``report.md``, ``report.json`` and a picture of the curves for each trained row.

    Args:
        folder: where the rows were trained, see `reproduce_row`.
        results: the rows and what `reproduce_row` gave.
        command: what was run, for the report.
    """
    comparisons = [c for row, ours in results for c in compare(row, ours)]
    pictures = {
        row.config: _draw(row, history, folder / f'{row.config}.png')
        for row, _ in results
        if (history := read_history(folder / row.config)).loss
    }
    lines = ['# Reproduction', '', f'`{command}`', '']
    lines += ['| config | metric | published | ours | difference | |', '|---|---|---|---|---|---|']
    for c in comparisons:
        ours = '' if c.ours is None else f'{c.ours:.2f}'
        difference = '' if c.ours is None else f'{c.ours - c.published:+.2f}'
        lines.append(
            f'| {c.config} | {c.metric} | {c.published} | {ours} | {difference} | {c.verdict} |'
        )
    for config, picture in pictures.items():
        lines += ['', f'## {config}', '', f'![loss and metrics of {config}]({picture.name})']
    (folder / 'report.md').write_text('\n'.join(lines) + '\n')
    content = [{**vars(c), 'verdict': c.verdict} for c in comparisons]
    (folder / 'report.json').write_text(json.dumps({'command': command, 'rows': content}, indent=1))
    return comparisons


def _draw(row: Row, history: History, file: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout='constrained')
    losses, metrics = figure.subplots(1, 2)
    losses.plot(*_points(history.loss), label='ours')
    if 'loss' in row.curves:
        losses.plot(*_points(row.curves['loss']), 'k--', label='published')
    losses.set(xlabel='iteration', ylabel='loss', yscale='log', title=row.config)
    for number, metric in enumerate(row.published):
        colour = f'C{number}'
        if metric in history.metrics:
            points = _points(history.metrics[metric])
            metrics.plot(*points, f'{colour}o-', label=f'{metric}, ours')
        if metric in row.curves:
            metrics.plot(*_points(row.curves[metric]), f'{colour}--', label=f'{metric}, published')
        else:
            metrics.axhline(
                row.published[metric], color=colour, ls=':', label=f'{metric}, published'
            )
    metrics.set(xlabel='iteration', ylabel='percent')
    for axes in (losses, metrics):
        axes.legend()
    figure.savefig(file, dpi=100)
    return file


def _points(values: dict[int, float]) -> tuple[list[int], list[float]]:
    iterations = sorted(values)
    return iterations, [values[i] for i in iterations]
