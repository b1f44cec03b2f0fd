"""tools/train.py killed twenty times by SIGKILL, and resumed: about six minutes on one core."""

import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from helpers.repository import REPOSITORY, run_tool

from lightvit_mm.engine.whole_files import is_whole, latest_checkpoint
from lightvit_mm.shapes.dataset import make_shapes

pytestmark = [pytest.mark.slow, pytest.mark.reliability]

KILLS, EPOCHS = 20, 36
# A line of the log after which the moment has come, and for how long it lasts in seconds.
MOMENTS = {
    'in a step': (r'Epoch\(train\)', 0.3),
    'while a checkpoint is written': (r'Saving checkpoint', 0.05),
    'in validation': (r'Epoch\(val\) *\[\d+\]\[', 0.3),
}


def command(data: Path, work_dir: Path) -> list[str]:
    options = [
        f'train_cfg.max_epochs={EPOCHS}',
        'train_cfg.val_interval=1',
        'train_dataloader.persistent_workers=False',
        'val_dataloader.batch_size=1',
        'default_hooks.checkpoint.interval=1',
        'default_hooks.checkpoint.max_keep_ckpts=1',
        'default_hooks.logger.interval=1',
        'model.test_cfg.score_thr=0.01',
    ]
    return [
        'tools/train.py', 'configs/retinanet_edgevit_xxs_shapes.py', '--data-root', str(data),
        '--work-dir', str(work_dir), '--cfg-options', *options,
    ]  # fmt: skip


def kill_at(moment: str, arguments: list[str], work_dir: Path, draw: random.Random) -> str:
    """Start a training and kill it; what it had said by then."""
    pattern, duration = MOMENTS[moment]
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    said, waiting = '', draw.randint(1, 6)
    for line in process.stdout:
        said += line
        waiting -= bool(re.search(pattern, line))
        # Not more than an epoch or two a run: twenty of them have to fit in.
        if waiting == 0 or said.count('Saving checkpoint') > 2:
            break
    if 'checkpoint' in moment:
        deadline = time.monotonic() + 1
        while not list(work_dir.glob('*.part')) and time.monotonic() < deadline:
            time.sleep(0.0005)
    time.sleep(draw.uniform(0, duration))
    process.kill()
    return said + process.communicate()[0]


def epoch_of(checkpoint: str | None) -> int:
    return int(re.search(r'epoch_(\d+)', checkpoint)[1]) if checkpoint else 0


def test_twenty_kills(tmp_path):
    data = tmp_path / 'shapes'
    make_shapes(data, num_train=16, num_val=4)
    work_dir, draw = tmp_path / 'killed', random.Random(6)
    halves, repeated, epoch = 0, Counter(), 0
    for kill in range(KILLS):
        assert epoch < EPOCHS, 'nothing is left to kill'
        moment = list(MOMENTS)[kill % 3]
        arguments = command(data, work_dir) + (['--resume'] if epoch else [])
        said = kill_at(moment, arguments, work_dir, draw)
        assert 'Traceback' not in said and '\nerror: ' not in said, said[-3000:]
        if epoch:
            assert f'resumed epoch: {epoch}, iter: {4 * epoch}' in said
        parts = list(work_dir.glob('*.part'))
        halves += len(parts)
        assert all(is_whole(file) for file in work_dir.glob('*.pth'))
        last = epoch_of(latest_checkpoint(work_dir))
        assert last >= epoch
        steps = re.findall(r'Epoch\(train\) +\[(\d+)\]\[(\d+)/4\]', said)
        done = 4 * (int(steps[-1][0]) - 1) + int(steps[-1][1]) if steps else 4 * epoch
        repeated[moment] += max(0, done - 4 * last)
        print(f'kill {kill + 1}, {moment}: step {done}, whole: epoch {last}, halves {len(parts)}')
        epoch = last
    print(f'{halves} half-written files; steps to repeat: {dict(repeated)}')
    assert halves > 0
    done = run_tool(*command(data, work_dir), '--resume')
    assert done.returncode == 0, done.stderr[-3000:]
    done = run_tool(*command(data, tmp_path / 'whole'))
    assert done.returncode == 0, done.stderr[-3000:]
    found, expected = (
        torch.load(folder / f'epoch_{EPOCHS}.pth', weights_only=False)
        for folder in (work_dir, tmp_path / 'whole')
    )
    for name, value in expected['state_dict'].items():
        assert torch.equal(found['state_dict'][name], value), name
    for index, moments in expected['optimizer']['state'].items():
        for name, value in moments.items():
            assert torch.equal(found['optimizer']['state'][index][name], value), (index, name)
    print(f'weights and optimizer after {EPOCHS} epochs equal those of an uninterrupted run')
