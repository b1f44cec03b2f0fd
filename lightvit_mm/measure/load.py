"""How busy other programs keep the processor."""

from __future__ import annotations

import os
import time
from pathlib import Path

STAT = Path('/proc/stat')  # of Linux: seconds that each core spent in each state


def usable_cores() -> set[int]:
    """The numbers of the cores on which this process may run."""
    if hasattr(os, 'sched_getaffinity'):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def busy_cores(seconds: float = 0.3) -> float:
    """How many of `usable_cores` work on average while this process sleeps.

    Elsewhere than on Linux, the average load of the last minute, this process included.
    """
    if not STAT.exists():
        return os.getloadavg()[0]
    before = _times()
    time.sleep(seconds)
    after = _times()
    busy = 0.0
    for core in usable_cores() & before.keys() & after.keys():
        worked, passed = (end - start for start, end in zip(before[core], after[core], strict=True))
        busy += worked / passed if passed else 0.0
    return busy


def _times() -> dict[int, tuple[int, int]]:
    """Of each core, the ticks in which it worked, and all ticks."""
    times = {}
    for line in STAT.read_text().splitlines():
        name, *fields = line.split()
        if name.startswith('cpu') and name != 'cpu':
            # user, nice, system, idle, waiting for a disk, ...; guests are part of user.
            ticks = list(map(int, fields[:8]))
            times[int(name[3:])] = sum(ticks) - ticks[3] - ticks[4], sum(ticks)
    return times
