"""Errors that the caller can fix, reported without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


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


@contextmanager
def user_errors() -> Iterator[None]:
    """Print the errors that users can fix to standard error, and exit with status 2."""
    try:
        with stack_errors():
            yield
    except (UserError, FileNotFoundError) as error:
        print(f'\nerror: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        sys.exit(130)
