"""Errors that the caller can fix, reported without a traceback."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class UserError(RuntimeError):
    """Something that the caller can fix; the message explains what and how."""


class ConfigError(UserError, ValueError):
    """An invalid value in a config."""


class MissingFileError(UserError, FileNotFoundError):
    """A file that was named but does not exist."""


class ConfigTypeError(ConfigError, TypeError):
    """An argument in a config that is unknown or has the wrong type."""


class StackError(UserError, ImportError):
    """A package that lightvit_mm depends on cannot be imported; the message is the doctor's."""


@contextmanager
def stack_errors() -> Iterator[None]:
    """Turn imports that fail because of a broken environment into a StackError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        from lightvit_mm import doctor  # late, since python -m lightvit_mm.doctor loads it itself

        if explanation := doctor.explain(error):
            raise StackError(explanation) from error
        raise


class _Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt, so that files and folders are cleaned up."""


@contextmanager
def user_errors() -> Iterator[None]:
    """Print the errors that users can fix to standard error, and exit with status 2.

    Errors of the disk are among them. SIGINT gives status 130 and SIGTERM 143, after temporary
    files were removed.
    """
    try:
        with stack_errors(), _terminable():
            yield
    except (UserError, OSError) as error:
        if not (
            isinstance(error, (UserError, FileNotFoundError))
            or error.filename is not None
            or error.errno in (errno.ENOSPC, errno.EDQUOT)
        ):
            raise
        from lightvit_mm.commands import as_typed_here  # late, as in stack_errors

        print(as_typed_here(f'\nerror: {error}'), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        sys.exit(130)
    except _Terminated:
        print('\nterminated', file=sys.stderr)
        sys.exit(143)


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise `_Terminated` on SIGTERM, once; the next one ends the process at once."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        # A process that waits for others of its group could not react.
        or 'RANK' in os.environ
    ):
        yield
        return

    def terminate(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise _Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
