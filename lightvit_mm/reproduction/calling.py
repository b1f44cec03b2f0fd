"""Calling tools/train.py and tools/test.py in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from lightvit_mm.carried import TOOLS
from lightvit_mm.engine.history import metrics_in_percent
from lightvit_mm.errors import UserError

__all__ = ['call', 'evaluated_metrics', 'launcher']


def launcher(gpus: int) -> list[str]:
    """The words before a tool that start it in one process, or in several on this machine."""
    if gpus == 1:
        return [sys.executable]
    # --standalone chooses a free port, since another row may be running on this machine.
    distributed = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={gpus}']
    return [sys.executable, *distributed]


def call(command: list[str]) -> None:
    """Run a tool, and end it if this process is interrupted.

    Raises:
        UserError: it failed.
    """
    with subprocess.Popen(command) as process:
        try:
            status = process.wait()
        except BaseException:
            # It ends too, and may write what it still has.
            process.terminate()
            process.wait()
            raise
    if status:
        script = next(Path(part).name for part in command if part.startswith(str(TOOLS)))
        raise UserError(f'exit status {status} of tools/{script}; see its output and its log')


def evaluated_metrics(work_dir: Path) -> dict[str, float]:
    """The metrics in percent of the last evaluation in a folder; empty if there is none."""
    logs = sorted(work_dir.glob('*/*.json'))
    return metrics_in_percent(json.loads(logs[-1].read_text())) if logs else {}
