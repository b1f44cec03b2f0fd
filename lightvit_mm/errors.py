"""Errors that the caller can put right, told without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(RuntimeError):
    """Something that the caller can put right; the message says what and how."""


class ConfigError(UserError, ValueError):
    """A value in a config that cannot be right."""


class MissingFileError(UserError, FileNotFoundError):
    """A file that was named and is not there."""


class ConfigTypeError(ConfigError, TypeError):
    """An argument in a config that does not exist, or of the wrong type."""


class StackError(UserError, ImportError):
    """Something that lightvit_mm stands on cannot be imported; the message is the doctor's."""


@contextmanager
def stack_errors() -> Iterator[None]:
    """Turn an import that fails by a broken environment into a StackError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        from lightvit_mm import doctor  # not before: python -m lightvit_mm.doctor loads it as well

        if explanation := doctor.explain(error):
            raise StackError(explanation) from error
        raise


@contextmanager
def user_errors() -> Iterator[None]:
    """Print the errors that users can put right on standard error and exit with status 2."""
    try:
        with stack_errors():
            yield
    except (UserError, FileNotFoundError) as error:
        print(f'\nerror: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        sys.exit(130)
