"""What is wrong or odd in a data set, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lightvit_mm.errors import UserError

# Training would stop, or learn something else than the files say.
ERROR = 'error'
# Training leaves something out or changes it, and says nothing.
WARNING = 'warning'
# Read as it should be, though not everybody expects it.
NOTE = 'note'
SEVERITIES = (ERROR, WARNING, NOTE)

Judgement = tuple[str, str, str]  # severity, kind and detail of a Finding


class DataError(UserError):
    """A data set that cannot be trained on or evaluated as it is."""


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        severity: one of `SEVERITIES`.
        kind: what it is, the same words for all of its kind.
        file: the file that it is in.
        item: what in the file, e.g. ``'annotation 12'``; empty for the whole.
        detail: what was found there.
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
    """What was found in one data set of a config.

    Attributes:
        part: ``'train'``, ``'val'`` or ``'test'``.
        source: the annotation file, or the folder of images.
        counts: how many of what were looked at.
        findings: in the order in which they were met.
    """

    part: str
    source: str
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ', '.join(f'{count} {what}' for what, count in self.counts.items())
        return f'{self.part}: {self.source}' + (f' ({counts})' if counts else '')

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        findings = [vars(finding) for finding in self.findings]
        return {'part': self.part, 'source': self.source, **self.counts, 'findings': findings}


def count(findings: Iterable[Finding], severity: str) -> int:
    """How many of a severity there are."""
    return sum(finding.severity == severity for finding in findings)


def tell(findings: Iterable[Finding], most: int = 3) -> Iterator[str]:
    """Lines for a person: each kind with its count, the worst first, and ``most`` examples."""
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
