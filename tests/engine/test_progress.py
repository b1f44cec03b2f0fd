"""What a training shows in a terminal, in a pipe and in TensorBoard."""

import logging
import os
import sys
import threading
from contextlib import redirect_stdout

import pytest
from helpers.toy_run import Killed, ToyNotes, run_toy, toy_config
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from lightvit_mm.engine.memory import ResidentMemoryHook
from lightvit_mm.engine.progress import (
    progress_line,
    use_tensorboard,
)
from lightvit_mm.errors import UserError


class Terminal:
    """A pseudo-terminal that keeps what is written to it."""

    def __init__(self):
        self.master, slave = os.openpty()
        self.stream = os.fdopen(slave, 'w')
        self.text = ''
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        while True:
            try:
                chunk = os.read(self.master, 4096)
            except OSError:  # the other end was closed
                return
            self.text += chunk.decode()

    def close(self):
        # The logger lives on as the current one.
        for handler in MMLogger.get_current_instance().handlers:
            if getattr(handler, 'stream', None) is self.stream:
                handler.setStream(sys.__stdout__)
        self.stream.close()
        self._reader.join()
        os.close(self.master)
        return self.text


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('COLUMNS', '120')
    for name in ('NO_COLOR', 'FORCE_COLOR', 'TTY_COMPATIBLE', 'TTY_INTERACTIVE'):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


def run(tmp_path, kill_after=None):
    config = toy_config(tmp_path, log_level='INFO', custom_hooks=[])
    config.default_hooks.logger = {'type': 'LoggerHook', 'interval': 1}
    runner = Runner.from_cfg(config)
    runner.register_hook(ResidentMemoryHook())
    runner.register_hook(ToyNotes(kill_after), 'LOWEST')
    with progress_line(runner):
        runner.train()
    return runner


def log_of(runner):
    with open(f'{runner.log_dir}/{runner.timestamp}.log') as file:
        return file.read()


def test_terminal_has_one_line_and_the_file_all(tmp_path, terminal, quick_runner, monkeypatch):
    monkeypatch.setattr('lightvit_mm.engine.progress.PERIOD', 0)
    with redirect_stdout(terminal.stream):
        runner = run(tmp_path)
    text = terminal.close()
    for part in ('training', '1/12', '12/12', 'remaining', 'loss ', 'validating', '3/3'):
        assert part in text, part
    assert 'Epoch(train)' not in text
    # Lines logged once per epoch stay.
    assert text.count('mean:') == 4 and 'Saving checkpoint at 4 epochs' in text
    log = log_of(runner)
    assert log.count('Epoch(train)') == 12
    assert 'remaining' not in log and '\x1b' not in log.split('Config:')[-1]
    assert 'memory: ' in log
    # The handlers have their own filters only, and the cursor is visible again.
    filters = [item for handler in runner.logger.handlers for item in handler.filters]
    assert all(isinstance(item, logging.Filter) for item in filters)
    assert text.rstrip().endswith('\x1b[?25h')


def test_terminal_is_given_back_after_a_failure(tmp_path, terminal, quick_runner):
    with redirect_stdout(terminal.stream), pytest.raises(Killed):
        run(tmp_path, kill_after=5)
    assert terminal.close().rstrip().endswith('\x1b[?25h')


def test_pipe_has_plain_lines(tmp_path, capsys, quick_runner):
    run(tmp_path)
    text = capsys.readouterr().out
    assert text.count('Epoch(train)') == 12
    assert 'remaining' not in text and '\x1b[2K' not in text


def test_tensorboard_that_is_not_installed(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install tensorboard'):
        use_tensorboard(Config({}))


@pytest.mark.parametrize(
    'visualizer',
    [
        {},
        {'visualizer': {'type': 'DetLocalVisualizer', 'vis_backends': None}},
        {'visualizer': {'type': 'V', 'vis_backends': [{'type': 'LocalVisBackend'}]}},
    ],
    ids=['none', 'no backend', 'local'],
)
def test_tensorboard_beside_the_local_files(monkeypatch, visualizer):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: object())
    config = Config(visualizer)
    use_tensorboard(config)
    use_tensorboard(config)
    kinds = [backend['type'] for backend in config.visualizer.vis_backends]
    assert kinds == ['LocalVisBackend', 'TensorboardVisBackend']


def test_tensorboard_gets_the_loss(tmp_path, quick_runner):
    accumulator = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator', reason='needs tensorboard'
    )
    config = toy_config(tmp_path)
    config.default_hooks.logger = {'type': 'LoggerHook', 'interval': 1}
    use_tensorboard(config)
    runner, losses = run_toy(config)
    events = accumulator.EventAccumulator(f'{runner.log_dir}/vis_data').Reload()
    assert len(events.Scalars('loss')) == len(losses) == 12
    assert events.Scalars('loss')[0].value == pytest.approx(losses[0], rel=1e-4)
