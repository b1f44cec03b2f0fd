"""2,000 images and 2,000 steps: memory, open files, processes. Some seven minutes on one core."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.repository import REPOSITORY, run_tool

from lightvit_mm.shapes.dataset import make_shapes

pytestmark = [pytest.mark.slow, pytest.mark.reliability]

CONFIG = 'configs/retinanet_edgevit_xxs_shapes.py'
MARKS = (100, 1000, 2000)


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f'/proc/{pid}/task').iterdir():
        for child in (task / 'children').read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def resident(pid: int) -> float:
    """Megabytes that the process holds in memory, shared ones included."""
    pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def open_files(pid: int) -> int:
    """The fewest of some moments: a tensor on its way from a worker is an open file too."""
    counts = []
    for _ in range(20):
        counts.append(len(os.listdir(f'/proc/{pid}/fd')))
        time.sleep(0.02)
    return min(counts)


def watched(arguments: list, done: Callable[[], int]) -> dict[int, dict]:
    """Run a tool; what it holds when ``done()`` passes each of `MARKS`."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)], cwd=REPOSITORY, stdout=subprocess.DEVNULL
    )
    found: dict[int, dict] = {}
    children: set[int] = set()
    while process.poll() is None:
        time.sleep(0.02)
        count = done()
        mark = MARKS[len(found)] if len(found) < len(MARKS) else None
        if mark and count >= mark:
            workers = descendants(process.pid)
            children |= set(workers)
            found[mark] = {
                'MB': round(resident(process.pid)),
                'MB of workers': [round(resident(worker)) for worker in workers],
                'open files': open_files(process.pid),
                'processes': 1 + len(workers),
            }
            print(f'{arguments[0]} at {count}: {found[mark]}')
    assert process.returncode == 0
    assert not [child for child in children if Path(f'/proc/{child}').exists()]
    return found


def assert_flat(found: dict[int, dict]) -> None:
    assert list(found) == list(MARKS)
    first, *later = found.values()
    for held in later:
        assert held['open files'] <= first['open files']
        assert held['processes'] <= first['processes']
        # Allocators keep what pages they have; a leak of one 128 px picture a step would be 90 MB.
        assert held['MB'] <= first['MB'] + 30


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes(root, num_train=250, num_val=50)
    return root


def test_training_steps(data, tmp_path):
    def steps() -> int:
        file = next(tmp_path.glob('*/vis_data/scalars.json'), None)
        lines = file.read_text().splitlines() if file else []
        return json.loads(lines[-1]).get('step', 0) if lines else 0

    options = [
        'train_cfg.max_epochs=9',
        'train_cfg.val_interval=9',
        'train_dataloader.batch_size=1',
        'default_hooks.logger.interval=10',
        'default_hooks.checkpoint.interval=9',
        'model.test_cfg.score_thr=0.01',
    ]
    assert_flat(
        watched(
            [
                'tools/train.py', CONFIG, '--data-root', data, '--work-dir', tmp_path,
                '--cfg-options', *options,
            ],
            steps,
        )
    )  # fmt: skip


def test_images_to_predict(data, tmp_path):
    images, out = tmp_path / 'images', tmp_path / 'out'
    images.mkdir()
    originals = sorted((data / 'images' / 'val').iterdir())
    for index in range(2050):
        (images / f'{index:04}.png').symlink_to(originals[index % len(originals)])
    options = ['train_cfg.max_epochs=3', 'model.test_cfg.score_thr=0.01']
    trained = run_tool(
        'tools/train.py', CONFIG, '--data-root', data, '--work-dir', tmp_path / 'work',
        '--cfg-options', *options,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr[-3000:]
    checkpoint = tmp_path / 'work' / 'epoch_3.pth'
    assert_flat(
        watched(
            ['tools/predict.py', CONFIG, checkpoint, images, '--out', out],
            lambda: len(os.listdir(out)) if out.is_dir() else 0,
        )
    )
    assert len(json.loads((out / 'predictions.json').read_text())['images']) == 2050
