"""Errors that the caller can put right, told without a traceback."""

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


@contextmanager
def user_errors() -> Iterator[None]:
    """Print the errors that users can put right on standard error and exit with status 2."""
    try:
        yield
    except (UserError, FileNotFoundError) as error:
        print(f'\nerror: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        sys.exit(130)
