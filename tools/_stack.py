"""What the tools import first: where the stack is broken, they end with what the doctor says."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed
try:
    from lightvit_mm.errors import user_errors
except ImportError as error:
    print(f'\nerror: {error}', file=sys.stderr)
    sys.exit(2)

__all__ = ['user_errors']
