"""Imported first by the tools: on a broken installation they exit with the doctor's diagnosis."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the package may not be installed
# Read when torch loads OpenMP. Its threads otherwise wait for each other in loops, and on a busy
# machine they keep the cores from the threads that they wait for.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
try:
    from lightvit_mm.errors import user_errors
except ImportError as error:
    print(f'\nerror: {error}', file=sys.stderr)
    sys.exit(2)

__all__ = ['user_errors']
