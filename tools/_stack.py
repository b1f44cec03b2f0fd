"""Imported first by the tools: on a broken installation they exit with the doctor's diagnosis."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the package may not be installed
try:
    from lightvit_mm.errors import user_errors
except ImportError as error:
    print(f'\nerror: {error}', file=sys.stderr)
    sys.exit(2)

__all__ = ['user_errors']
