"""Findings about a data set, and how they are reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightvit_mm.errors import UserError

# Training would stop, or learn something other than what the files say.
ERROR = 'error'
# Training silently leaves something out or changes it.
WARNING = 'warning'
# Read correctly, but perhaps not as expected.
NOTE = 'note'
SEVERITIES = (ERROR, WARNING, NOTE)

Judgement = tuple[str, str, str]  # severity, kind and detail of a Finding


class DataError(UserError):
    """A data set that cannot be trained on or evaluated as it is."""


@dataclass(frozen=True)
class Finding:
    """Something found in a file.

    Attributes:
        severity: one of `SEVERITIES`.
        kind: what it is, in the same words for all findings of this kind.
        file: the file.
        item: the item in the file, e.g. ``'annotation 12'``; empty for the whole file.
        detail: the values found.
    """

    severity: str
    kind: str
    file: str
    item: str = ''
    detail: str = ''

    def __str__(self) -> str:
        place = f'{self.file}, {self.item}' if self.item else self.file
        return f'{place}: {self.detail}' if self.detail else place


@dataclass
class Report:
    """The findings in one data set of a config.

    Attributes:
        part: ``'train'``, ``'val'`` or ``'test'``.
        source: the annotation file, or the folder of images.
        counts: numbers of images and annotations that were checked.
        findings: in order of discovery.
    """

    part: str
    source: str
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ', '.join(f'{count} {what}' for what, count in self.counts.items())
        return f'{self.part}: {self.source}' + (f' ({counts})' if counts else '')

    def as_dict(self) -> dict[str, Any]:
        """Convert the report to a dict for JSON."""
        findings = [vars(finding) for finding in self.findings]
        return {'part': self.part, 'source': self.source, **self.counts, 'findings': findings}


def some_of(names: Sequence[str], most: int = 6) -> str:
    """List names, of which only the first if there are many."""
    return ', '.join(names[:most]) + (f', … ({len(names)})' if len(names) > most else '')


def count(findings: Iterable[Finding], severity: str) -> int:
    """Count the findings of a severity."""
    return sum(finding.severity == severity for finding in findings)


def lines(findings: Iterable[Finding], most: int = 3) -> Iterator[str]:
    """Yield lines to print: each kind with its count and examples, the most severe first."""
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.kind), []).append(finding)
    for (severity, kind), found in sorted(
        kinds.items(), key=lambda item: SEVERITIES.index(item[0][0])
    ):
        yield f'  {severity}: {kind} ({len(found)})'
        yield from (f'    {finding}' for finding in found[:most])
        if len(found) > most:
            yield f'    and {len(found) - most} more'
