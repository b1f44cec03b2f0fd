"""Kill -9 at random moments of a toy training; tests/reliability kills a real one."""

import multiprocessing
import os
import random
import time

import pytest
import torch
from helpers.toy_run import run_toy, toy_config

from lightvit_mm.engine.whole_files import is_whole, latest_checkpoint

EPOCHS, KILLS = 12, 6


def config(work_dir):
    config = toy_config(work_dir, epochs=EPOCHS, resume=True)
    # Checkpoints of 10 MB, which take as long to write as some steps.
    config.model.width = 800
    config.default_hooks.checkpoint.max_keep_ckpts = 1
    return config


def train(work_dir):
    torch.set_num_threads(1)
    run_toy(config(work_dir))


@pytest.fixture
def _one_thread():
    """As in the killed processes, since more threads would add in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures('_one_thread')
def test_no_kill_loses_a_checkpoint(tmp_path):
    draw, work_dir = random.Random(0), tmp_path / 'killed'
    epoch = halves = 0
    for kill in range(KILLS):
        child = multiprocessing.get_context('fork').Process(target=train, args=(work_dir,))
        child.start()
        if kill % 2:
            # While a checkpoint is being written.
            while child.is_alive() and not list(work_dir.glob('*.part')):
                time.sleep(0.0005)
        else:
            while child.is_alive() and not list(work_dir.glob('*.pth')):
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.5))
        child.kill()
        child.join()
        halves += len(list(work_dir.glob('*.part')))
        assert all(is_whole(file) for file in work_dir.glob('*.pth'))
        last = latest_checkpoint(work_dir)
        if last is not None:
            content = torch.load(last, weights_only=False)
            assert content['meta']['epoch'] >= epoch
            epoch = content['meta']['epoch']
        else:
            assert epoch == 0
    assert halves > 0
    killed, _ = run_toy(config(work_dir))
    assert killed.epoch == EPOCHS
    whole, _ = run_toy(config(tmp_path / 'whole'))
    expected = whole.model.state_dict()
    for name, value in killed.model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert not [file for file in os.listdir(work_dir) if file.endswith('.part')]
