"""One training at a time in a work dir."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import socket
import time
from contextlib import suppress

import pytest
from helpers.toy_run import toy_config

from lightvit_mm.engine import locking
from lightvit_mm.engine.locking import LOCK, lock_work_dir
from lightvit_mm.engine.running import train
from lightvit_mm.errors import UserError


def hold(folder, pipe):
    with lock_work_dir(folder):
        if os.fork() == 0:
            time.sleep(60)  # as a data worker that outlives the training
            os._exit(0)
        pipe.send(True)
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """A process that has the work dir, and a child of it."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context('fork').Process(target=hold, args=(tmp_path, there))
    process.start()
    assert here.poll(30)
    group = f'/proc/{process.pid}/task/{process.pid}/children'
    with open(group) as file:
        children = [int(number) for number in file.read().split()]
    yield process
    for number in (process.pid, *children):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.join()


def written(folder):
    return json.loads((folder / LOCK).read_text())


def leave_behind(folder, **changes):
    """The lock file of a process that was killed."""
    gone = multiprocessing.get_context('fork').Process(target=int)
    gone.start()
    gone.join()
    text = {
        'host': socket.gethostname(),
        'boot': locking._boot(),
        'pid': gone.pid,
        'since': '2026-01-31 12:00:00',
    }
    (folder / LOCK).write_text(json.dumps({**text, **changes}))
    return gone.pid


def test_a_second_training_is_refused(tmp_path, holder, quick_runner):
    with pytest.raises(UserError) as caught:
        train(toy_config(tmp_path))
    said = str(caught.value)
    assert said.startswith(f'{tmp_path} is used by another training, process {holder.pid} on ')
    assert said.endswith('wait for it, or give another --work-dir')
    assert written(tmp_path)['pid'] == holder.pid
    assert os.listdir(tmp_path) == [LOCK]


def test_a_killed_training_is_taken_over(tmp_path, holder, mm_log):
    """At once, though its child still runs."""
    holder.kill()
    holder.join()
    with lock_work_dir(tmp_path):
        assert written(tmp_path)['pid'] == os.getpid()
    assert mm_log == [
        f'{tmp_path / LOCK}: process {holder.pid} ended before its training did; taken over'
    ]
    assert (tmp_path / LOCK).read_text() == ''


def test_a_lock_of_another_machine(tmp_path, mm_log):
    number = leave_behind(tmp_path, host='other', boot='other')
    before = (tmp_path / LOCK).read_text()
    with pytest.raises(UserError) as caught, lock_work_dir(tmp_path):
        pass
    assert f'process {number} on other (since 2026-01-31 12:00:00)' in str(caught.value)
    assert str(caught.value).endswith(f'If it no longer runs, remove {tmp_path / LOCK}')
    assert (tmp_path / LOCK).read_text() == before
    # After a restart, and in another container of the same machine.
    for changes in ({'boot': 'before'}, {'host': 'container'}):
        leave_behind(tmp_path, **changes)
        with lock_work_dir(tmp_path):
            pass
    assert len(mm_log) == 2


def test_an_error_gives_the_work_dir_back(tmp_path, mm_log):
    for _ in range(2):
        with pytest.raises(ValueError, match='no'), lock_work_dir(tmp_path / 'new'):
            raise ValueError('no')
    (tmp_path / 'new' / LOCK).write_text('{"pid": [')
    with lock_work_dir(tmp_path / 'new'):
        pass
    assert not mm_log


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'lockf', unsupported)
    leave_behind(tmp_path)
    with (
        lock_work_dir(tmp_path),
        pytest.raises(UserError, match='is used by another'),
        lock_work_dir(tmp_path),
    ):
        pass  # the process of the first one runs
    leave_behind(tmp_path, pid=os.getpid(), boot='before')
    with lock_work_dir(tmp_path):
        pass


def test_only_the_first_process_of_a_run_locks(tmp_path, holder, monkeypatch):
    from lightvit_mm.engine.running import _locked

    config = toy_config(tmp_path, launcher='pytorch')
    monkeypatch.setenv('RANK', '1')
    with _locked(config):
        assert written(tmp_path)['pid'] == holder.pid
    monkeypatch.setenv('RANK', '0')
    with pytest.raises(UserError, match='is used by another'), _locked(config):
        pass
