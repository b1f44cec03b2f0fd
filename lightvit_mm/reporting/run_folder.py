"""What the folder of a training says of it, finished or not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from lightvit_mm.errors import MissingFileError, UserError

# What mmengine's Runner names the folder of a start.
START = re.compile(r'\d{8}_\d{6}')
TIME = re.compile(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - ', re.M)
PROGRESS = re.compile(
    r'(?:Epoch|Iter)\(train\)\s+(?:\[\s*(\d+)\])?\[\s*(\d+)/(\d+)\].*?(?:eta: (.+?)  |$)', re.M
)
# What `lightvit_mm.engine.running.train` says last.
END = ' trained: checkpoint '
ENVIRONMENT = re.compile(r'^System environment:\n(.*?)\n-{20}', re.M | re.S)
# Of the compiler's many lines only the first of a name is one.
ENTRY = re.compile(r'^    (\w[^:]*): (.+)$', re.M)
LONG_ENTRY = 'PyTorch compiling details'


@dataclass(frozen=True)
class Start:
    """One start of a training: the first, or one that resumed it.

    Attributes:
        folder: named by date and time.
        began, last: of its first and last line in the log.
        log: that.
    """

    folder: Path
    began: datetime
    last: datetime
    log: str

    @property
    def config(self) -> Path:
        """The config as the runner had it."""
        return self.folder / 'vis_data' / 'config.py'


@dataclass(frozen=True)
class RunFolder:
    """A training as its folder has it.

    Attributes:
        path: the folder.
        starts: in the order of time; at least one.
    """

    path: Path
    starts: tuple[Start, ...]

    @property
    def is_finished(self) -> bool:
        """Whether the last start ended as it should."""
        return END in self.starts[-1].log

    @property
    def duration(self) -> timedelta:
        """Time that the starts took together, validations included."""
        return sum((start.last - start.began for start in self.starts), timedelta())

    @property
    def position(self) -> str:
        """How far it is."""
        found = self._progress()
        if found is None:
            return 'no iteration logged yet'
        epoch, iteration, total, _ = found
        return (f'epoch {epoch}, ' if epoch else '') + f'iteration {iteration} of {total}'

    @property
    def remaining(self) -> str | None:
        """The time that it still takes, as mmengine's log estimates it."""
        found = self._progress()
        return found[3] if found else None

    @property
    def environment(self) -> dict[str, str]:
        """Machine and settings of the last start."""
        block = ENVIRONMENT.search(self.starts[-1].log)
        entries = dict(ENTRY.findall(block[1])) if block else {}
        entries.pop(LONG_ENTRY, None)
        return entries

    def _progress(self) -> tuple[str, str, str, str] | None:
        for start in reversed(self.starts):
            found = PROGRESS.findall(start.log)
            if found:
                return found[-1]
        return None


def read_run(work_dir: str | Path) -> RunFolder:
    """Look into the folder of a training.

    Args:
        work_dir: ``--work-dir`` of tools/train.py.

    Raises:
        MissingFileError: it is not there.
        UserError: no training was ever started in it; names those below it.
    """
    path = Path(work_dir)
    if not path.is_dir():
        raise MissingFileError(
            f'{work_dir} is no folder: give the work dir of a training '
            '(work_dirs/<config name>, where no other was asked for)'
        )
    starts = [_start(folder) for folder in sorted(path.iterdir()) if START.fullmatch(folder.name)]
    trainings = tuple(start for start in starts if start and not _is_evaluation(start.log))
    if not trainings:
        below = sorted({str(file.parents[2]) for file in path.glob('*/*/vis_data/config.py')})
        raise UserError(
            f'no training was started in {work_dir}: it has no folder such as '
            '20260131_120000/vis_data with a config.py, which tools/train.py makes. '
            + (f'There are runs in {", ".join(below)}' if below else 'Give the work dir of one')
        )
    return RunFolder(path, trainings)


def _start(folder: Path) -> Start | None:
    log = folder / f'{folder.name}.log'
    if not (folder / 'vis_data' / 'config.py').is_file() or not log.is_file():
        return None
    text = log.read_text(errors='replace')
    times = [datetime.strptime(found, '%Y/%m/%d %H:%M:%S') for found in TIME.findall(text)]
    named = datetime.strptime(folder.name, '%Y%m%d_%H%M%S')
    return Start(folder, *((times[0], times[-1]) if times else (named, named)), text)


def _is_evaluation(log: str) -> bool:
    """Whether a log is one of tools/test.py, which may share the folder."""
    return bool(re.search(r'(Epoch|Iter)\(test\)', log)) and '(train)' not in log
