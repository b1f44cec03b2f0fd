"""The checkout and its scripts."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def run_tool(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess:
    """Run one of the project's scripts as a user would."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True
    )
