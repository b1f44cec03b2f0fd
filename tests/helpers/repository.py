"""The checkout and its scripts."""

import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

# Importing these takes longer than most tools run, so a server does it once and forks for each.
_SERVER = multiprocessing.get_context('forkserver')
_SERVER.set_forkserver_preload(['mmdet.apis', 'mmseg.apis', 'lightvit_mm'])


def run_tool(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess:
    """Run one of the project's scripts as a user would, in a process of its own."""
    words = [str(word) for word in arguments]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ('stdout', 'stderr')]
        process = _SERVER.Process(target=_run, args=(words, cwd, dict(os.environ), outputs))
        process.start()
        process.join()
        texts = [file.read_text() for file in outputs]
    return subprocess.CompletedProcess(words, process.exitcode, *texts)


def _run(words: list[str], cwd: Path, environment: dict[str, str], outputs: list[Path]) -> None:
    gc.freeze()  # else each collection copies what the server imported
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for descriptor, file in enumerate(outputs, start=1):
        os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY), descriptor)
    sys.argv = words
    # Tests that imported timm leave its folder here, with a torchvision that breaks mmdet.
    sys.path[:] = [folder for folder in sys.path if folder != f'{sys.prefix}/timm']
    sys.path.insert(0, str(Path(words[0]).resolve().parent))
    runpy.run_path(words[0], run_name='__main__')
