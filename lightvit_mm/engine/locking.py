"""The work dir of a training: whether it can be used, and one training at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from lightvit_mm.errors import UserError

__all__ = ['LOCK', 'check_work_dir', 'lock_work_dir']

LOCK = 'train.lock'
BOOT = Path('/proc/sys/kernel/random/boot_id')
# What lockf raises if another process has the lock, and if the file system has no locks.
TAKEN = (errno.EACCES, errno.EAGAIN)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)


def check_work_dir(config: Config) -> None:
    """Check that a training can use the work dir of its config.

    Raises:
        UserError: it is a file, or the folder of the config, which the training would replace.
    """
    folder = Path(config.work_dir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f'--work-dir {folder} is a file: give a folder')
    # A run saves its whole config there under this name.
    saved = folder / Path(config.filename or '').name
    ran = (folder / LOCK).exists() or any(folder.glob('*/vis_data'))
    if saved.is_file() and saved.samefile(config.filename) and not ran:
        raise UserError(
            f'--work-dir {folder} is the folder of the config, and the config of the run would '
            f'replace {saved}: give another folder'
        )


@contextmanager
def lock_work_dir(work_dir: str | Path) -> Iterator[None]:
    """Keep other trainings out of a work dir, which is made, until the block ends.

    The lock is one of the operating system on ``train.lock``, so it ends with the process, however
    that ends. The file says which process has it. If that process ended without removing its name,
    a training on the same machine takes the work dir over, and one on another machine is refused,
    since not every network file system shares its locks. Where there are no locks, the process
    number in the file decides.

    Args:
        work_dir: output folder of the training.

    Raises:
        UserError: another training has the work dir.
        OSError: the file cannot be written.
    """
    path = Path(work_dir) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        locked = _lock(file)
        holder = _read(file)
        if locked is False or (holder and not _has_ended(holder, bool(locked))):
            raise UserError(_refusal(path, holder, locked is False))
        if holder:
            print_log(
                f'{path}: process {holder["pid"]} ended before its training did; taken over',
                logger='current',
            )
        try:
            _write(file, path, {'host': socket.gethostname(), 'boot': _boot(), 'pid': os.getpid()})
            yield
        finally:
            with suppress(OSError):
                os.ftruncate(file, 0)
    finally:
        os.close(file)


def _lock(file: int) -> bool | None:
    """Lock an open file; False if another process has it, None if that is not supported."""
    try:
        # Not flock, whose locks are inherited: workers may outlive a killed training by seconds.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


def _read(file: int) -> dict[str, Any] | None:
    with suppress(ValueError, TypeError, KeyError):
        content = json.loads(os.pread(file, 4096, 0))
        return {
            'host': str(content['host']),
            'boot': str(content['boot']),
            'pid': int(content['pid']),
            'since': str(content['since']),
        }
    return None


def _write(file: int, path: Path, holder: dict[str, Any]) -> None:
    text = json.dumps({**holder, 'since': datetime.now().isoformat(' ', 'seconds')})
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode(), 0)
    except OSError as error:
        error.filename = str(path)
        raise


def _boot() -> str:
    """A number of this start of the machine, the same in all its containers."""
    return BOOT.read_text().strip() if BOOT.is_file() else ''


def _has_ended(holder: dict[str, Any], locked: bool) -> bool:
    """Whether the process that a lock file names is known to have ended."""
    if holder['host'] != socket.gethostname() and holder['boot'] != _boot():
        return False
    if locked:
        return True
    try:
        os.kill(holder['pid'], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return holder['boot'] != _boot()


def _refusal(path: Path, holder: dict[str, Any] | None, running: bool) -> str:
    who = 'another process'
    if holder:
        who = f'process {holder["pid"]} on {holder["host"]} (since {holder["since"]})'
    advice = 'wait for it, or give another --work-dir'
    if not running:
        advice += f'. If it no longer runs, remove {path}'
    return f'{path.parent} is used by another training, {who}: {advice}'
