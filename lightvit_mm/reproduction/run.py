"""Training or evaluating the published rows, one after the other, and going on where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.runner import find_latest_checkpoint

from lightvit_mm.errors import UserError
from lightvit_mm.reproduction.history import metrics_in_percent, read_history
from lightvit_mm.reproduction.published import PROCESSES, Row

DONE = 'reproduced.json'


def reproduce_row(
    row: Row,
    data_root: str,
    folder: Path,
    gpus: int = 1,
    evaluate: bool = False,
    cfg_options: Sequence[str] = (),
) -> dict[str, float]:
    """Train a row, or evaluate its released checkpoint, unless that was done before.

    Args:
        row: what to reproduce.
        data_root: place of the row's data set.
        folder: for everything that is written; a row has a folder of its own there.
        gpus: number of processes; the learning rate follows where batch and recipe differ.
        evaluate: evaluate ``row.released`` instead of training.
        cfg_options: ``KEY=VALUE``, for every row.

    Returns:
        Metric to value, in percent.

    Raises:
        UserError: the row cannot be evaluated, or its run failed.
    """
    work_dir = folder / (f'{row.config}_released' if evaluate else row.config)
    done = work_dir / DONE
    if done.is_file():
        return json.loads(done.read_text())
    command = [sys.executable]
    if gpus > 1:
        command += ['-m', 'torch.distributed.run', f'--nproc_per_node={gpus}']
    if evaluate:
        if row.released is None:
            raise UserError(f'{row.config}: its authors released no checkpoint to evaluate')
        command += ['tools/test.py', f'configs/{row.config}.py', row.released]
    else:
        command += ['tools/train.py', f'configs/{row.config}.py']
        # tools/train.py refuses to resume from nothing.
        command += ['--resume'] if find_latest_checkpoint(str(work_dir)) else []
        command += ['--auto-scale-lr'] if gpus != PROCESSES else []
    command += ['--data-root', data_root, '--work-dir', str(work_dir)]
    command += ['--launcher', 'pytorch'] if gpus > 1 else []
    command += ['--cfg-options', *cfg_options] if cfg_options else []
    status = subprocess.run(command, check=False).returncode
    if status:
        raise UserError(f'{row.config}: exit status {status} of {" ".join(command)}')
    metrics = _evaluated(work_dir) if evaluate else _trained(work_dir)
    # Beside, then renamed: an interrupted write must not pass for a finished row.
    done.with_suffix('.new').write_text(json.dumps(metrics, indent=1))
    done.with_suffix('.new').rename(done)
    return metrics


def _trained(work_dir: Path) -> dict[str, float]:
    history = read_history(work_dir)
    finals = {name: history.final(name) for name in history.metrics}
    return {name: value for name, value in finals.items() if value is not None}


def _evaluated(work_dir: Path) -> dict[str, float]:
    logs = sorted(work_dir.glob('*/*.json'))
    return metrics_in_percent(json.loads(logs[-1].read_text())) if logs else {}
