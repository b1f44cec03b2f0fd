"""The memory of this process, for runs on CPUs."""

from __future__ import annotations

import ctypes
import resource
import sys
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

# Parameters of mallopt, from glibc's malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Let this process reuse the memory of freed tensors instead of returning it to the system.

    By default glibc returns each block of more than 32 MB at once, and the system clears its pages
    one by one when the next layer allocates as much again: with images of 800 x 1344 pixels that
    can take longer than the layer itself (docs/performance.md). The price is that the process never
    shrinks.

    Returns:
        Whether the C library supports it.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, 2**30) and mallopt(TRIM_THRESHOLD, 2**31 - 1))


class ResidentMemoryHook(Hook):
    """Logs the peak resident memory of this process in MB, as mmengine does for GPUs."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log the peak so far; the workers that load images are not included."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Linux gives kB, macOS bytes.
        megabytes = peak // (2**20 if sys.platform == 'darwin' else 2**10)
        runner.message_hub.update_scalar('train/memory', megabytes)
