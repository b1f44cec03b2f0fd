"""What the check finds, and the files that hold it: everything as JSON, and tables for people."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightvit_mm.files import check_output_file, write_whole

JSON, TABLES, LOG = 'gpu_check.json', 'gpu_check.md', 'gpu_check.log'
HEADING = '# GPU check'
MARKS = {JSON: rb'\A\{\s*"command": ', TABLES: b'\\A' + HEADING.encode(), LOG: b'\\A== '}


@dataclass(frozen=True)
class Check:
    """A deviation, and the largest one allowed; NaN is not."""

    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the deviation is within the limit."""
        return self.value <= self.limit

    def __str__(self) -> str:
        verdict = 'ok' if self.passed else 'FAILED'
        return f'{verdict} {self.name}: {self.value:.1e}, at most {self.limit:.1e}'


@dataclass(frozen=True)
class Bar:
    """A ratio of theirs to ours, and the least one wanted; missing it is no failure."""

    name: str
    value: float
    bar: float

    def __str__(self) -> str:
        verdict = 'met' if self.value >= self.bar else 'missed'
        return f'{verdict} {self.name}: {self.value:.2f}, bar {self.bar:.2f}'


@dataclass(frozen=True)
class Row:
    """A line of a table: values by column, None where one could not be measured."""

    table: str
    cells: dict[str, Any]

    def __str__(self) -> str:
        cells = ', '.join(f'{name} {_cell(value)}' for name, value in self.cells.items())
        return f'{self.table}: {cells}'


@dataclass(frozen=True)
class Failure:
    """Something that raised an error, ended its process, or was stopped."""

    name: str
    error: str

    def __str__(self) -> str:
        return f'FAILED {self.name}: {self.error}'


@dataclass(frozen=True)
class Skipped:
    """Something that was not done, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f'skipped {self.name}: {self.reason}'


Finding = Check | Bar | Row | Failure | Skipped


def is_failure(finding: Finding) -> bool:
    """Whether a finding makes the whole check fail."""
    return isinstance(finding, Failure) or (isinstance(finding, Check) and not finding.passed)


@dataclass
class PartResult:
    """What a part found, in that order; ``state`` is ``done``, or what it is or why it ended."""

    name: str
    title: str
    state: str = 'waiting'
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)


@dataclass
class Report:
    """The whole run; `write` replaces its files, so that they always hold all that is known."""

    folder: Path
    command: str
    machine: dict[str, Any]
    parts: list[PartResult]

    @property
    def failures(self) -> list[Finding]:
        """The findings that make the check fail."""
        return [each for part in self.parts for each in part.findings if is_failure(each)]

    def write(self) -> None:
        """Write both files."""
        content: dict[str, Any] = {'command': self.command, 'machine': self.machine}
        content['parts'] = [dataclasses.asdict(part) for part in self.parts]
        for part, written in zip(self.parts, content['parts'], strict=True):
            for finding, cells in zip(part.findings, written['findings'], strict=True):
                cells['kind'] = type(finding).__name__.lower()
        write_whole(self.folder / JSON, json.dumps(content, indent=1) + '\n')
        write_whole(self.folder / TABLES, self.as_markdown())

    def as_markdown(self) -> str:
        """The tables, with the machine at the top."""
        machine = ', '.join(f'{name} {value}' for name, value in self.machine.items())
        lines = [HEADING, '', f'`{self.command}`', '', machine, '']
        for part in self.parts:
            lines += [f'## {part.title}', '', f'{part.state}, {part.seconds:.0f} s', '']
            checks = [each for each in part.findings if isinstance(each, Check)]
            if checks:
                passed = sum(each.passed for each in checks)
                lines += [f'{passed} of {len(checks)} checks passed.', '']
            lines += _tables(each for each in part.findings if isinstance(each, Row))
            told = (Bar, Failure, Skipped)
            notes = [each for each in part.findings if isinstance(each, told) or is_failure(each)]
            lines += [f'- {_one_line(str(each))}' for each in notes] + [''] * bool(notes)
        return '\n'.join(lines)


def check_folder(folder: Path) -> None:
    """Raise a `UserError` if a file may not or cannot be written, before the work begins."""
    for name, mark in MARKS.items():
        check_output_file(folder / name, '--work-dir', mark)


def _tables(rows: Iterable[Row]) -> list[str]:
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        tables.setdefault(row.table, []).append(row.cells)
    lines = []
    for title, lists in tables.items():
        columns = list(dict.fromkeys(column for cells in lists for column in cells))
        lines += [f'**{title}**', '', f'| {" | ".join(columns)} |', '|---' * len(columns) + '|']
        for cells in lists:
            texts = (_one_line(_cell(cells.get(column))) for column in columns)
            lines.append(f'| {" | ".join(texts)} |')
        lines.append('')
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return '-'
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _one_line(text: str) -> str:
    return ' '.join(text.split()).replace('|', '/')
