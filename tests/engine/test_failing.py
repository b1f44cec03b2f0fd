"""The error and the checkpoint of a training whose disk or data fail on the way."""

import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from helpers.toy_run import ToyMetric, run_toy, toy_config

from lightvit_mm.engine.running import train
from lightvit_mm.engine.whole_files import is_whole
from lightvit_mm.errors import UserError, user_errors


@pytest.fixture
def at_validation(monkeypatch):
    """Calls a function in the second validation."""

    def later(action):
        calls = iter([lambda: None, action])

        def compute(metric, results):
            next(calls)()
            return {'mean': 0.0}

        monkeypatch.setattr(ToyMetric, 'compute_metrics', compute)

    return later


def failure_of(config):
    with pytest.raises(UserError) as caught:
        train(config)
    return str(caught.value)


@pytest.mark.parametrize('workers', [0, 1])
def test_data_that_vanish(tmp_path, at_validation, workers):
    file = tmp_path / 'image.png'
    file.touch()
    config = toy_config(tmp_path / 'work', workers=workers)
    config.train_dataloader.dataset.file = str(file)
    at_validation(file.unlink)
    said = failure_of(config)
    assert said.startswith('training stopped: ')
    assert f"No such file or directory: '{file}'" in said
    assert f'last whole checkpoint: {Path(config.work_dir, "epoch_2.pth")}' in said
    assert 'Traceback' not in said


def test_a_full_disk(tmp_path, at_validation):
    """Simulated by a limit on file size."""
    config = toy_config(tmp_path)
    config.model.width = 200
    config.default_hooks.checkpoint.max_keep_ckpts = 1
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    at_validation(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1])))
    try:
        said = failure_of(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    last = tmp_path / 'epoch_2.pth'
    assert f"File too large: '{tmp_path}/epoch_3.pth'" in said
    assert f'last whole checkpoint: {last}' in said
    assert is_whole(last)
    assert list(tmp_path.glob('epoch*')) == [last]


def test_a_work_dir_that_cannot_be_made(tmp_path):
    """Below a file, since root may write anywhere else."""
    (tmp_path / 'file').touch()
    said = failure_of(toy_config(tmp_path / 'file' / 'work'))
    assert f"Not a directory: '{tmp_path}/file/work'" in said
    assert 'no checkpoint was saved' in said


@pytest.mark.usefixtures('ctrl_c')
@pytest.mark.parametrize('number, status', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_a_checkpoint_is_written(tmp_path, monkeypatch, number, status):
    fsync, calls = os.fsync, []

    def interrupted(file):
        calls.append(file)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        fsync(file)

    monkeypatch.setattr('lightvit_mm.files.os.fsync', interrupted)
    with pytest.raises(SystemExit) as caught, user_errors():
        train(toy_config(tmp_path))
    assert caught.value.code == status
    assert not list(tmp_path.rglob('*.part'))
    assert (tmp_path / 'train.lock').read_text() == ''
    runner = train(toy_config(tmp_path), resume='auto')
    assert runner.epoch == 4


def test_weights_to_start_from_are_not_replaced(tmp_path):
    train(toy_config(tmp_path, epochs=1))
    before = (tmp_path / 'epoch_1.pth').read_bytes()
    start = f'{tmp_path}/./epoch_1.pth'
    said = failure_of(toy_config(tmp_path, epochs=1, load_from=start))
    assert 'is in the work dir, where this training would replace it' in said
    assert (tmp_path / 'epoch_1.pth').read_bytes() == before
    train(toy_config(tmp_path / 'other', epochs=1, load_from=start))


def test_resuming_takes_the_last_whole_checkpoint_and_its_seed(tmp_path, capsys):
    config = toy_config(tmp_path / 'killed', epochs=3, randomness={'seed': None})
    killed, _ = run_toy(config, kill_after=8)
    damaged = tmp_path / 'killed' / 'epoch_2.pth'
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = toy_config(tmp_path / 'killed', epochs=3, randomness={'seed': None})
    resumed = train(again, resume='auto')
    assert f'{damaged} is damaged: passed over' in capsys.readouterr().out
    assert resumed.seed == killed.seed
    whole, _ = run_toy(toy_config(tmp_path / 'whole', epochs=3, randomness={'seed': killed.seed}))
    expected = whole.model.state_dict()
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_nothing_whole_to_resume(tmp_path):
    (tmp_path / 'epoch_1.pth').write_bytes(b'half')
    with pytest.raises(UserError, match='no whole checkpoint in'):
        train(toy_config(tmp_path), resume='auto')
