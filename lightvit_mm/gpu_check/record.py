"""What the check finds, and the files that hold it: everything as JSON, and tables for people."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightvit_mm.files import check_output_file, write_whole

JSON, TABLES, LOG = 'gpu_check.json', 'gpu_check.md', 'gpu_check.log'
HEADING = '# GPU check'
MARKS = {JSON: rb'\A\{\s*"command": ', TABLES: b'\\A' + HEADING.encode(), LOG: b'\\A== '}


@dataclass(frozen=True)
class Check:
    """A deviation that must stay within a limit.

    Attributes:
        name: what was compared.
        value: the deviation.
        limit: the largest deviation allowed.
    """

    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the deviation is within the limit; NaN is not."""
        return self.value <= self.limit

    def __str__(self) -> str:
        verdict = 'ok' if self.passed else 'FAILED'
        return f'{verdict} {self.name}: {self.value:.1e}, at most {self.limit:.1e}'


@dataclass(frozen=True)
class Bar:
    """A ratio of theirs to ours that we want to reach; missing it is no failure.

    Attributes:
        name: what was compared.
        value: the ratio; larger is better for us.
        bar: the least ratio wanted.
    """

    name: str
    value: float
    bar: float

    @property
    def met(self) -> bool:
        """Whether the ratio reaches the bar."""
        return self.value >= self.bar

    def __str__(self) -> str:
        return f'{"met" if self.met else "missed"} {self.name}: {self.value:.2f}, bar {self.bar}'


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        table: title of the table.
        cells: values by column; None where it could not be measured.
    """

    table: str
    cells: dict[str, Any]

    def __str__(self) -> str:
        cells = ', '.join(f'{name} {_cell(value)}' for name, value in self.cells.items())
        return f'{self.table}: {cells}'


@dataclass(frozen=True)
class Failure:
    """Something that raised an error, ended its process, or was stopped.

    Attributes:
        name: what was being done.
        error: what happened.
    """

    name: str
    error: str

    def __str__(self) -> str:
        return f'FAILED {self.name}: {self.error}'


@dataclass(frozen=True)
class Skipped:
    """Something that was not done.

    Attributes:
        name: what it was.
        reason: why not.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f'skipped {self.name}: {self.reason}'


Finding = Check | Bar | Row | Failure | Skipped


@dataclass
class PartResult:
    """What one part found.

    Attributes:
        name: its name on the command line.
        title: its heading.
        state: ``waiting``, ``running``, ``done``, or why it ended otherwise.
        seconds: how long it took.
        findings: in the order in which they were found.
    """

    name: str
    title: str
    state: str = 'waiting'
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    @property
    def failures(self) -> list[Finding]:
        """The findings that make the check fail."""
        return [
            each
            for each in self.findings
            if isinstance(each, Failure) or (isinstance(each, Check) and not each.passed)
        ]


@dataclass
class Report:
    """The whole run; `write` replaces its files, so that they always hold all that is known.

    Attributes:
        folder: where the files are.
        command: the command line.
        machine: hardware and versions.
        parts: in the order in which they run.
    """

    folder: Path
    command: str
    machine: dict[str, Any]
    parts: list[PartResult]

    def write(self) -> None:
        """Write both files."""
        content = {
            'command': self.command,
            'machine': self.machine,
            'parts': [
                {
                    **dataclasses.asdict(part),
                    'findings': [
                        {'kind': type(each).__name__.lower(), **_plain(dataclasses.asdict(each))}
                        for each in part.findings
                    ],
                }
                for part in self.parts
            ],
        }
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
            lines += _tables(part.findings)
            others = (Bar, Failure, Skipped)
            notes: list[Finding] = [each for each in part.findings if isinstance(each, others)]
            notes += [each for each in checks if not each.passed]
            lines += [f'- {_one_line(str(each))}' for each in notes] + [''] * bool(notes)
        return '\n'.join(lines)


def check_folder(folder: Path) -> None:
    """Check that the files may and can be written, before the work begins.

    Raises:
        UserError: one is something else, or cannot be written.
    """
    for name, mark in MARKS.items():
        check_output_file(folder / name, '--work-dir', mark)


def _tables(findings: list[Finding]) -> list[str]:
    tables: dict[str, list[dict[str, Any]]] = {}
    for each in findings:
        if isinstance(each, Row):
            tables.setdefault(each.table, []).append(each.cells)
    lines = []
    for title, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        lines += [f'**{title}**', '', f'| {" | ".join(columns)} |', '|---' * len(columns) + '|']
        for row in rows:
            cells = (_one_line(_cell(row.get(column))) for column in columns)
            lines.append(f'| {" | ".join(cells)} |')
        lines.append('')
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return '-'
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _one_line(text: str) -> str:
    return ' '.join(text.split()).replace('|', '/')


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become their names."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    finite = not isinstance(value, float) or math.isfinite(value)
    return value if finite else str(value)
