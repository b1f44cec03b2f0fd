"""The record of a published row's runs, kept in their folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmengine.runner import find_latest_checkpoint

from lightvit_mm.files import write_whole
from lightvit_mm.reproduction.published import Row

FILE = 'reproduction.json'
TRAINED, RELEASED = 'trained here', 'released'
# The option that gives a row other weights to start from.
INIT = 'model.backbone.init_cfg'


@dataclass
class Run:
    """One start of a training or evaluation.

    Attributes:
        started: local date and time.
        processes: number of processes.
        cfg_options: changes to the config, ``KEY=VALUE``.
        command: the words of the command line.
        resumed: name of the checkpoint from which it resumed.
    """

    started: str
    processes: int
    cfg_options: list[str]
    command: list[str]
    resumed: str | None = None


@dataclass
class Record:
    """The runs of a row and their result.

    Attributes:
        runs: in the order of their starts; those after the first resume it.
        metrics: values in percent by name; empty until the row is finished.
        problem: why there are no metrics, if known.
    """

    runs: list[Run] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    problem: str | None = None


def is_changed(row: Row, record: Record) -> bool:
    """Whether a run changed the config, other than by weights in place of third-party ones."""
    return any(
        not (row.weights.release.third_party and option.startswith(f'{INIT}.'))
        for run in record.runs
        for option in run.cfg_options
    )


def row_folder(row: Row, folder: Path, weights: str) -> Path:
    """The folder of a row's runs; ``weights`` is `TRAINED` or `RELEASED`."""
    return folder / (row.config if weights == TRAINED else f'{row.config}_released')


def last_checkpoint(folder: Path) -> str | None:
    """The last checkpoint of a training in ``folder``, None before the first."""
    # mmengine's function prints a message if there is none.
    known = (folder / 'last_checkpoint').is_file()
    return find_latest_checkpoint(str(folder)) if known else None


def read_record(folder: Path) -> Record:
    """Read the record in a row's folder; an empty one if there is none."""
    file = folder / FILE
    if not file.is_file():
        return Record()
    content = json.loads(file.read_text())
    return Record(**{**content, 'runs': [Run(**run) for run in content['runs']]})


def write_record(folder: Path, record: Record) -> None:
    """Write the record into a row's folder, which is made."""
    write_whole(folder / FILE, json.dumps(asdict(record), indent=1))


def recorded(rows: Sequence[Row], folder: Path) -> Iterator[tuple[Row, str, Record]]:
    """Every row with a record under ``folder``, with `TRAINED` or `RELEASED`, and the record."""
    for row in rows:
        for weights in (TRAINED, RELEASED):
            place = row_folder(row, folder, weights)
            if (place / FILE).is_file():
                yield row, weights, read_record(place)
