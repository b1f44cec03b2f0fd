"""Build a wheel of mmcv with its compiled ops in the user's cache, and install it from there.

--stack onedl builds onedl-mmcv, its maintained fork, in the same way.

mmcv's own build compiles 57 small dispatch files and 20 CPU kernels, each of which spends most of
its time in torch's headers: 17 minutes on two cores. Four files that include 72 of them (see
``unite``) and the other five take a minute and a half, and the ops give the same bits. The CUDA
kernels are compiled in groups for the same reason. If that fails, mmcv is built unchanged.

CUDA operators are built where torch finds a GPU, for the GPUs that it finds. FORCE_CUDA=1 builds
them without a GPU, and TORCH_CUDA_ARCH_LIST="8.6;9.0" for other GPUs, as mmcv's and torch's users
know. nvcc is downloaded where the machine has none for torch's CUDA version.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, NoReturn

import _cuda
from _cuda import Cuda, CudaError


class Release(NamedTuple):
    """A source release of mmcv on the package index."""

    name: str
    version: str

    @property
    def stem(self) -> str:
        """The name of its archive, and of the folder in the archive."""
        return f'{self.name.replace("-", "_")}-{self.version}'


RELEASES = {'openmmlab': Release('mmcv', '2.1.0'), 'onedl': Release('onedl-mmcv', '2.3.6')}
RECIPE = 1  # part of the cache key: raise it when a change below gives another wheel
# -O1 also gives the fastest ops: nms takes a third of its time at -O2 or -O3 (where gcc 12 turns a
# well predicted branch into data flow), roi_align takes the same.
# Without -DNDEBUG, pixel_group aborts the process: its assertion is wrong.
CPU_FLAGS = '-g0 -O1 -DNDEBUG -w'
# These kernels define different macros or templates under the same names.
CLASHING = {'bezier_align', 'psamask', 'roi_align', 'roi_align_rotated', 'rotated_feature_align'}
MEMORY_PER_JOB = 2.2e9  # measured: 2.1 GB for the larger of the two united files
CUDA_MEMORY_PER_JOB = 3.5e9  # measured: 3.4 GB for the largest group of CUDA files
HOPELESS = (
    'No space left on device',
    'Disk quota exceeded',
    'Killed signal',
    'died due to signal 9',  # nvcc's words
    'Cannot allocate',
)
PROBE = """
import mmcv, torch
from mmcv.ops import get_compiling_cuda_version, nms
assert mmcv.__version__ == {version!r}, f'mmcv {{mmcv.__version__}}'
assert not {cuda} or get_compiling_cuda_version() != 'not available', 'no CUDA ops'
devices = ['cpu', *(f'cuda:{{i}}' for i in range(torch.cuda.device_count() if {cuda} else 0))]
for device in devices:
    nms(torch.tensor([[0.0, 0.0, 2.0, 2.0]]).to(device), torch.ones(1).to(device), 0.5)
"""


class BuildError(Exception):
    """A failure that another way of building may avoid."""


def stop(why: str, cure: str) -> NoReturn:
    """End with the two lines that setup.sh shows."""
    sys.exit(f'WHY: {why}\nCURE: {cure}')


def say(text: str) -> None:
    """Print at once: setup.sh follows the log."""
    print(text, flush=True)


def cache_root() -> Path:
    """Return the folder that keeps what is built or downloaded."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache', 'lightvit_mm')


def cache_slots(release: Release, rest: str) -> list[Path]:
    """Return the cache directories of this Python and libc whose names end with ``rest``."""
    libc = ''.join(platform.libc_ver()) or platform.mac_ver()[0]
    root = cache_root() / 'wheels' / f'{release.name}-{release.version}'
    name = f'{sysconfig.get_config_var("SOABI")}-{libc}-{rest}'
    return sorted(root.glob(name)) if '*' in rest else [root / name]


def cache_slot(release: Release, cuda: Cuda | None) -> Path:
    """Return the cache directory for this environment's torch and kind of ops."""
    ops = cuda.key if cuda else 'cpu'
    return cache_slots(release, f'torch{metadata.version("torch")}-{ops}-r{RECIPE}')[0]


@contextlib.contextmanager
def locked(slot: Path) -> Iterator[None]:
    """Keep two clones from building the same wheel; the kernel drops the lock of a dead process."""
    slot.mkdir(parents=True, exist_ok=True)
    with open(slot / 'lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('waiting for another build of the same wheel')
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks: the rename at the end is atomic all the same
        yield


def check_wheel(wheel: Path) -> Path:
    """Return the wheel; raise if it is cut short, has a flipped bit, or lacks the ops."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            bad, names = archive.testzip(), archive.namelist()
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        raise BuildError(f'{wheel.name}: {error}') from error
    if bad or not any(name.startswith('mmcv/_ext.') for name in names):
        raise BuildError(f'{wheel.name}: {bad or "mmcv/_ext"} is damaged or missing')
    return wheel


def check_compiler() -> None:
    """Stop unless a C++17 program that includes Python.h compiles."""
    compiler = shlex.split(os.environ.get('CXX', 'c++'))
    python = f'python{sys.version_info.major}.{sys.version_info.minor}'
    include = sysconfig.get_path('include')
    if not shutil.which(compiler[0]):
        stop(
            f'no C++ compiler: {compiler[0]} is not on the PATH, and mmcv has to be compiled',
            'install one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; '
            'macOS: xcode-select --install) or name it with CXX=..., and run this again',
        )
    if not Path(include, 'Python.h').exists():
        stop(
            f'the headers of {python} are missing: there is no {include}/Python.h',
            f'install them (Debian, Ubuntu: apt install {python}-dev; Fedora: dnf install '
            f'{python}-devel) or choose another Python with PYTHON=..., and run this again',
        )
    command = [*compiler, '-std=c++17', '-fsyntax-only', f'-I{include}', '-x', 'c++', '-']
    source = '#include <Python.h>\n#include <string_view>\n'
    tried = subprocess.run(command, input=source, capture_output=True, text=True)
    if tried.returncode:
        say(tried.stderr)
        stop(
            f'{shlex.join(compiler)} fails on a small C++17 program that includes Python.h',
            'fix or update it (gcc 9 or clang 9 at least), or name another with CXX=...',
        )


def run(command: list[str], environment: dict[str, str]) -> None:
    """Run a command, pass its output on line by line, and raise if it fails."""
    say('+ ' + shlex.join(command))
    pipes = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
    child = subprocess.Popen(command, env=environment, text=True, errors='replace', **pipes)
    hopeless = ''
    for line in child.stdout:
        say(line.rstrip())
        hopeless = next((text for text in HOPELESS if text in line), hopeless)
    if child.wait():
        if hopeless:  # no other way of building helps
            sys.exit(f'{hopeless} (exit status {child.returncode})')
        raise BuildError(f'{shlex.join(command[1:4])} gave exit status {child.returncode}')


def jobs(memory: float) -> int:
    """Return how many compilers of this much memory may run at once: one per core at most."""
    affinity = getattr(os, 'sched_getaffinity', None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith('MemAvail'))
    except (OSError, StopIteration):
        return cores
    return max(1, min(cores, int(free / memory)))


def unite(groups: list[list[Path]], name: str) -> None:
    """Include the files of each group in a new file, so that torch's headers are read once."""
    for number, group in enumerate(groups):
        suffix, folder = group[0].suffix, group[0].parent
        for file in group:
            file.rename(file.with_suffix('.inc'))  # setup.py compiles whatever ends in suffix
        # Each CUDA file begins with the headers that it needs.
        first = ['<torch/extension.h>'] if suffix == '.cpp' else []
        includes = [*first, *(f'"{file.stem}.inc"' for file in group)]
        text = ''.join(f'#include {include}\n' for include in includes)
        (folder / f'{name}_{number}{suffix}').write_text(text)


def unite_all(ops: Path) -> None:
    """Unite the files of mmcv's operators that can be."""
    kernels = [file for file in ops.glob('cpu/*.cpp') if file.stem not in CLASHING]
    for name, files in ('dispatch', sorted(ops.glob('*.cpp'))), ('kernels', sorted(kernels)):
        middle = len(files) // 2 + 1
        unite([files[:middle], files[middle:]], f'united_{name}')
    unite(_cuda.groups(sorted(ops.glob('cuda/*.cu'))), 'united_cuda')


def build(release: Release, cuda: Cuda | None, folder: Path) -> Path:
    """Download the source release into a folder and build its wheel there."""
    scripts = str(Path(sys.executable).parent)
    memory = CUDA_MEMORY_PER_JOB if cuda else MEMORY_PER_JOB
    flags = {
        'MMCV_WITH_OPS': '1',
        'MAX_JOBS': os.environ.get('MAX_JOBS') or str(jobs(memory)),
        'PATH': os.pathsep.join([scripts, os.environ['PATH']]),
        'PYTHONUNBUFFERED': '1',
    }
    if cuda:
        flags |= _cuda.compile_environment(cuda, cache_root())
    else:  # or mmcv compiles CUDA kernels wherever torch sees a GPU
        flags |= {'FORCE_CUDA': '0', 'CUDA_VISIBLE_DEVICES': ''}
    environment = os.environ | flags
    options = ['--no-deps', '--no-build-isolation', '--progress-bar', 'off']
    pip = [sys.executable, '-m', 'pip']
    wanted = ['--no-binary', release.name, '-d', str(folder), f'{release.name}=={release.version}']
    try:
        run([*pip, 'download', *options, *wanted], environment)
    except BuildError as error:
        sys.exit(f'cannot download the source release: {error}')
    archive = folder / f'{release.stem}.tar.gz'
    wheel = [*pip, 'wheel', '-v', '--no-cache-dir', *options, '-w', str(folder)]
    try:
        if sys.platform != 'linux':
            raise BuildError('the fast way is for Linux')
        with tarfile.open(archive) as files:
            files.extractall(folder)
        source = folder / release.stem
        unite_all(source / 'mmcv/ops/csrc/pytorch')
        own = f'{os.environ.get("CFLAGS", "")} {CPU_FLAGS}'
        run([*wheel, str(source)], environment | {'CFLAGS': own.strip()})
        return check_wheel(next(folder.glob('*.whl')))
    except (BuildError, OSError, StopIteration, tarfile.TarError) as error:
        say(f'{error}: building mmcv unchanged, which takes a quarter of an hour or more')
    run([*wheel, str(archive)], environment)
    return check_wheel(next(folder.glob('*.whl')))


def make_wheel(release: Release, cuda: Cuda | None) -> Path:
    """Return the cached wheel; build it if there is none."""
    slot = cache_slot(release, cuda)
    with locked(slot):
        for wheel in slot.glob('*.whl'):
            try:
                return check_wheel(wheel)
            except BuildError as error:
                say(f'{error}: building it again')
                wheel.unlink()
        check_compiler()
        for left in slot.glob('build-*'):  # from a build that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix='build-', dir=slot) as folder:
            wheel = build(release, cuda, Path(folder))
            with open(wheel, 'rb') as written:
                os.fsync(written.fileno())
            return wheel.replace(slot / wheel.name)


def get_wheel(release: Release, cuda: Cuda | None) -> tuple[Path, Cuda | None]:
    """Return a wheel with the wanted ops, or for the CPU where CUDA ones cannot be compiled."""
    try:
        return make_wheel(release, cuda), cuda
    except CudaError as error:
        if _cuda.is_forced():
            raise
        say(f'NOTE: mmcv gets operators for the CPU only, since {error.why}; {error.cure}')
        return make_wheel(release, None), None


def probe(release: Release, cuda: Cuda | None) -> str:
    """Return why this environment's mmcv does not work, or ''."""
    script = PROBE.format(version=release.version, cuda=cuda is not None)
    tried = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    return (tried.stderr.strip() or 'no message') if tried.returncode else ''


def install(release: Release) -> None:
    """Install the wheel unless mmcv already works here; rebuild it once if it does not help."""
    cuda = _cuda.wanted()
    why = probe(release, cuda)
    for _ in range(2 if why else 0):
        wheel, cuda = get_wheel(release, cuda)
        options = ['--no-deps', '--no-index', '--force-reinstall', str(wheel)]
        run([sys.executable, '-m', 'pip', 'install', *options], dict(os.environ))
        why = probe(release, cuda)
        if not why:
            return
        say(why)
        if 'no kernel image' in why:
            stop(
                "mmcv's CUDA ops are compiled for other GPUs than those that are here",
                'unset TORCH_CUDA_ARCH_LIST, or add the compute capabilities of these GPUs to it',
            )
        wheel.unlink()
    if why:
        stop(
            f'mmcv was built and installed but does not run: {why.splitlines()[-1]}',
            'see the log; a driver, CUDA toolkit or libc that changed is the common cause',
        )


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'command',
        choices=['check', 'wheel', 'install'],
        help='check that it is cached or can be compiled; put the wheel into the cache; install it',
    )
    parser.add_argument('--stack', choices=list(RELEASES), default='openmmlab')
    args = parser.parse_args()
    release = RELEASES[args.stack]
    try:
        if args.command == 'install':
            install(release)
        elif args.command == 'wheel':
            say(f'the cache has {get_wheel(release, _cuda.wanted())[0]}')
        elif not any(next(slot.glob('*.whl'), None) for slot in cache_slots(release, 'torch*')):
            check_compiler()
    except CudaError as error:
        stop(error.why, error.cure)
    except BuildError as error:
        cure = 'see the first "error" in the log'
        stop(f'{release.name} {release.version} does not build: {error}', cure)
    except PermissionError as error:
        stop(str(error), 'make it writable, or keep the cache elsewhere with XDG_CACHE_HOME=...')


if __name__ == '__main__':
    main()
