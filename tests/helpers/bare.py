"""Environments that have nothing but a few packages, as on a device."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement


def link_packages(folder: Path, names: list[str]) -> None:
    """Link installed packages and what they require, and nothing else, into a folder.

    Args:
        folder: where to link them.
        names: the names of their distributions.
    """
    todo, done = list(names), set()
    while todo:
        name = todo.pop()
        if name in done:
            continue
        done.add(name)
        distribution = importlib.metadata.distribution(name)
        requirements = map(Requirement, distribution.requires or ())
        todo += [r.name for r in requirements if not r.marker or r.marker.evaluate({'extra': ''})]
        for top in {file.parts[0] for file in distribution.files if file.parts[0] != '..'}:
            if top != '__pycache__':
                (folder / top).symlink_to(distribution.locate_file(top))


def run_bare(folder: Path, *words: object) -> subprocess.CompletedProcess:
    """Run Python with the packages in a folder and no others."""
    return subprocess.run(
        [sys.executable, '-S', '-s', *map(str, words)],
        env={'PYTHONPATH': str(folder), 'PATH': os.environ['PATH'], 'OMP_NUM_THREADS': '1'},
        cwd=folder,
        capture_output=True,
        text=True,
    )
