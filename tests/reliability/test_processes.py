"""Two processes of tools/dist_train.sh: one dies. About a minute."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers.repository import REPOSITORY
from test_load import CONFIG, descendants

from lightvit_mm.shapes.dataset import make_shapes

pytestmark = [pytest.mark.slow, pytest.mark.reliability]


def start(tmp_path: Path, port: int, *options: str) -> subprocess.Popen:
    make_shapes(tmp_path / 'shapes', num_train=64, num_val=8)
    return subprocess.Popen(
        [
            'bash', 'tools/dist_train.sh', CONFIG, '2', '--data-root', tmp_path / 'shapes',
            '--work-dir', tmp_path / 'work', '--cfg-options', 'default_hooks.logger.interval=1',
            'default_hooks.checkpoint.interval=1', 'train_cfg.val_interval=99', *options,
        ],
        cwd=REPOSITORY, env={**os.environ, 'PORT': str(port)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_a_killed_process_stops_the_other(tmp_path):
    run = start(tmp_path, 29631, 'train_cfg.max_epochs=500')
    for line in run.stdout:
        if 'Epoch(train)' in line:
            break
    workers = descendants(run.pid)
    ranks = [pid for pid in workers if 'RANK=1' in Path(f'/proc/{pid}/environ').read_text()]
    os.kill(ranks[0], signal.SIGKILL)
    killed = time.monotonic()
    said = run.communicate()[0]
    print(f'stopped {time.monotonic() - killed:.1f} s after the kill')
    assert run.returncode != 0
    assert 'Signal 9 (SIGKILL)' in said
    # What loads images for the killed one looks every five seconds whether it is still there.
    while left := [pid for pid in workers if Path(f'/proc/{pid}').exists()]:
        assert time.monotonic() < killed + 30, left
        time.sleep(0.1)


def test_an_error_of_one_process_is_shown(tmp_path):
    run = start(tmp_path, 29632, 'train_cfg.max_epochs=500')
    for line in run.stdout:
        if 'Epoch(train)' in line:
            break
    for image in (tmp_path / 'shapes' / 'images' / 'train').glob('*.png'):
        image.unlink()
    failed = time.monotonic()
    said = run.communicate()[0]
    print(f'stopped {time.monotonic() - failed:.1f} s after the images went')
    assert run.returncode != 0
    assert re.search(r'error: .*\.png \(image \d+\) cannot be used', said)
    assert 'No such file or directory' in said
