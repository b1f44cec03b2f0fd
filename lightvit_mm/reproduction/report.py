"""The report of a reproduction: published and our figures, their differences, and the curves."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from mmengine.config import Config

from lightvit_mm.engine.history import read_history
from lightvit_mm.files import whole_file
from lightvit_mm.reproduction.curves import draw
from lightvit_mm.reproduction.published import Row
from lightvit_mm.reproduction.record import (
    TRAINED,
    Record,
    Run,
    is_changed,
    last_checkpoint,
    recorded,
    row_folder,
)

TITLE = '# Reproduction of published results'
# Largest difference in percentage points, about the spread of repeated trainings.
TOLERANCES = {'bbox_mAP': 0.3, 'segm_mAP': 0.3, 'mIoU': 0.5}


@dataclass(frozen=True)
class Comparison:
    """One figure of a row.

    Attributes:
        config: config of the row.
        weights: `TRAINED` or `RELEASED`.
        metric: name of the metric.
        published: published value in percent.
        ours: our value in percent; None without a result.
        changed: see `is_changed`.
    """

    config: str
    weights: str
    metric: str
    published: float
    ours: float | None
    changed: bool = False

    @property
    def difference(self) -> float | None:
        """Ours minus published, in percentage points."""
        return None if self.ours is None else self.ours - self.published

    @property
    def verdict(self) -> str:
        """Whether the difference is inside the tolerance, as text."""
        if self.difference is None:
            return 'no result'
        inside = abs(self.difference) <= TOLERANCES[self.metric] + 1e-9
        return f'{"inside" if inside else "OUTSIDE"} {TOLERANCES[self.metric]}'

    def __str__(self) -> str:
        if self.difference is None:
            return f'{self.config} {self.metric}: published {self.published}, no result'
        return (
            f'{self.config} {self.metric}: published {self.published}, ours {self.ours:.2f}, '
            f'difference {self.difference:+.2f}, {self.verdict}{" *" if self.changed else ""}'
        )


def compare(row: Row, weights: str, record: Record) -> list[Comparison]:
    """Compare every published figure of a row with ours."""
    changed = is_changed(row, record)
    return [
        Comparison(row.config, weights, metric, value, record.metrics.get(metric), changed)
        for metric, value in row.published.items()
    ]


def write_report(folder: Path, rows: Sequence[Row]) -> list[Comparison]:
    """Write ``report.md``, ``report.json`` and a chart of the curves of each trained row.

    Args:
        folder: the folder in which rows were trained or evaluated, see `reproduce_row`.
        rows: all published rows; those with runs in ``folder`` are reported.

    Returns:
        The comparisons of the reported rows.
    """
    found = list(recorded(rows, folder))
    comparisons = [c for row, weights, record in found for c in compare(row, weights, record)]
    verdicts = [c.verdict.split()[0] for c in comparisons if not c.changed]
    changed = len(comparisons) - len(verdicts)
    lines = [
        TITLE,
        '',
        f'{verdicts.count("inside")} of {len(verdicts)} figures are inside the '
        f'tolerance (0.3 points of AP, 0.5 of mIoU), {verdicts.count("OUTSIDE")} outside, '
        f'{verdicts.count("no")} without a result.'
        if verdicts
        else 'No figure from an unchanged config yet.',
        '',
        '| config | weights | metric | published | ours | difference | tolerance |',
        '|---|---|---|---|---|---|---|',
        *(_line(comparison) for comparison in comparisons),
        '',
    ]
    if changed:
        lines += [
            f'\\* {changed} with changes to the config, not counted above.',
            '',
        ]
    for row, weights, record in found:
        lines += _section(row, weights, record, row_folder(row, folder, weights))
    written = f'Written by tools/reproduce.py on {datetime.now().isoformat(" ", "minutes")}.'
    # Jobs for other rows may write the same report at the same time.
    with whole_file(folder / 'report.md', shared=True) as part:
        part.write_text('\n'.join([*lines, written, '']), encoding='utf-8')
    content = [
        {
            'config': row.config,
            'weights': weights,
            'source': row.source,
            'confidence': row.confidence,
            'initial_weights': row.init if weights == TRAINED else None,
            'changed': is_changed(row, record),
            'figures': {
                c.metric: {
                    'published': c.published,
                    'ours': c.ours,
                    'difference': c.difference,
                    'verdict': c.verdict,
                }
                for c in compare(row, weights, record)
            },
            'problem': record.problem,
            'runs': [asdict(run) for run in record.runs],
        }
        for row, weights, record in found
    ]
    with whole_file(folder / 'report.json', shared=True) as part:
        part.write_text(json.dumps(content, indent=1))
    return comparisons


def _line(comparison: Comparison) -> str:
    c = comparison
    ours = difference = ''
    if c.difference is not None:
        ours, difference = f'{c.ours:.2f}', f'{c.difference:+.2f}'
    cells = (
        c.config + (' \\*' if c.changed else ''),
        c.weights,
        c.metric,
        str(c.published),
        ours,
        difference,
        c.verdict,
    )
    return f'| {" | ".join(cells)} |'


def _section(row: Row, weights: str, record: Record, place: Path) -> list[str]:
    figures = ', '.join(f'{metric} {value}' for metric, value in row.published.items())
    doubts = [', by others than its authors'] if row.third_party else []
    doubts += [', *recalled*, not verified'] if row.confidence == 'recalled' else []
    lines = [
        f'## {row.config}, {weights}',
        '',
        f'- Published: {figures} ({row.source}{"".join(doubts)}).',
    ]
    lines += [f'- Remark: {text}.' for text in (row.obstacle, row.notes) if text]
    lines.append(f'- Recipe: {row.recipe.source}.')
    if weights == TRAINED:
        lines.append(f'- Initial weights: {row.weights}.')
    lines += [
        f'- Differs from the published recipe: {part}, {why}.'
        for part, why in row.explained.items()
    ]
    if record.problem:
        lines.append(f'- No result: {record.problem}')
    elif not record.metrics:
        lines.append('- Not finished: the same command resumes it.')
    for run in record.runs:
        start = f'resumed from {run.resumed}' if run.resumed else 'began'
        processes = f'{run.processes} process{"es" if run.processes > 1 else ""}'
        lines.append(f'- {run.started}: {start} on {processes}.')
    history = read_history(place)
    if weights == TRAINED and record.runs and history.iterations:
        picture = place.with_suffix('.png')
        batch = _batch(row, record, place)
        lines.append(
            f'- Trained for {history.iterations:,} iterations of {batch} images; published: '
            f'{row.iterations:,} of {row.recipe.batch}. Checkpoint '
            f'{last_checkpoint(place)}.'
        )
        draw(row, history, batch, picture)
        lines += ['', f'![Loss and metrics of {row.config}]({picture.name})']
    if record.runs:
        lines += ['', '```bash', _command(record.runs[-1]), '```']
    return [*lines, '']


def _command(run: Run) -> str:
    """The command line of a run, with one line per option."""
    text = shlex.quote(run.command[0])
    for word in run.command[1:]:
        starts_line = word.startswith('--') or word in run.cfg_options
        text += (' \\\n  ' if starts_line else ' ') + shlex.quote(word)
    return text


def _batch(row: Row, record: Record, place: Path) -> int:
    """Images per iteration over all processes, from the config that the run saved."""
    own = Config.fromfile(place / f'{row.config}.py').train_dataloader.batch_size
    return own * record.runs[-1].processes
