"""Reading the folder of a training, finished or not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from lightvit_mm.errors import MissingFileError, UserError

# How mmengine's Runner names the folder of a start.
START = re.compile(r'\d{8}_\d{6}')
TIME = re.compile(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - ', re.M)
PROGRESS = re.compile(
    r'(?:Epoch|Iter)\(train\)\s+(?:\[\s*(\d+)\])?\[\s*(\d+)/(\d+)\].*?(?:eta: (.+?)  |$)', re.M
)
# In the last message of `lightvit_mm.engine.running.train`.
END = ' trained: checkpoint '
ENVIRONMENT = re.compile(r'^System environment:\n(.*?)\n-{20}', re.M | re.S)
# The details of PyTorch's build take many lines, of which only the first has a name.
ENTRY = re.compile(r'^    (\w[^:]*): (.+)$', re.M)
LONG_ENTRY = 'PyTorch compiling details'


@dataclass(frozen=True)
class Start:
    """One start of a training: the first, or one that resumed it.

    Attributes:
        folder: its folder, named by date and time.
        began, last: times of the first and last line of its log.
        log: content of its log.
    """

    folder: Path
    began: datetime
    last: datetime
    log: str

    @property
    def config(self) -> Path:
        """The config that the runner used."""
        return self.folder / 'vis_data' / 'config.py'


@dataclass(frozen=True)
class RunFolder:
    """The folder of a training.

    Attributes:
        path: the folder.
        starts: at least one, in the order of time.
    """

    path: Path
    starts: tuple[Start, ...]

    @property
    def is_finished(self) -> bool:
        """Whether the last start ran to its end."""
        return END in self.starts[-1].log

    @property
    def duration(self) -> timedelta:
        """Total time of all starts, with validations."""
        return sum((start.last - start.began for start in self.starts), timedelta())

    @property
    def position(self) -> str:
        """The last logged epoch and iteration, as text."""
        found = self._progress()
        if found is None:
            return 'no iteration logged yet'
        epoch, iteration, total, _ = found
        return (f'epoch {epoch}, ' if epoch else '') + f'iteration {iteration} of {total}'

    @property
    def remaining(self) -> str | None:
        """The remaining time that mmengine's log estimates."""
        found = self._progress()
        return found[3] if found else None

    @property
    def environment(self) -> dict[str, str]:
        """Machine and settings that the last start logged."""
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
    """Read the folder of a training.

    Args:
        work_dir: ``--work-dir`` of tools/train.py.

    Raises:
        MissingFileError: the folder does not exist.
        UserError: no training was started in it; the message lists runs in folders below.
    """
    path = Path(work_dir)
    if not path.is_dir():
        raise MissingFileError(
            f'{work_dir} is no folder: give the work dir of a training '
            '(work_dirs/<config name>, unless --work-dir was given)'
        )
    starts = [_start(folder) for folder in sorted(path.iterdir()) if START.fullmatch(folder.name)]
    trainings = tuple(start for start in starts if start and not _is_evaluation(start.log))
    if not trainings:
        below = sorted({str(file.parents[2]) for file in path.glob('*/*/vis_data/config.py')})
        raise UserError(
            f'no training was started in {work_dir}: it has no folder like '
            '20260131_120000/vis_data with a config.py, which tools/train.py writes. '
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
    """Whether a log is from tools/test.py, which may use the same folder."""
    return bool(re.search(r'(Epoch|Iter)\(test\)', log)) and '(train)' not in log
