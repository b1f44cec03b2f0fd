"""Find what is wrong with the environment, and how to fix it: python -m lightvit_mm.doctor

Packages that may be broken are imported in a second process, which may crash without harm. The
doctor also runs on Python 3.8 and 3.9, to report that they are too old.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

OK, NOTE, BROKEN = 'ok', 'note', 'broken'  # note: most things still work
CHECKOUT = Path(__file__).parents[1]
COMMAND = 'python -m lightvit_mm.doctor'
SET_UP, SET_UP_FORKS = 'bash tools/setup.sh', 'bash tools/setup.sh --stack onedl'
SET_UP_EITHER = f'{SET_UP} [--stack onedl]'
INSTALLED = not (CHECKOUT / 'tools/setup.sh').is_file()
if INSTALLED:
    SET_UP, SET_UP_FORKS = (
        "pip install 'setuptools<82' wheel ninja; "
        f"pip install --no-build-isolation 'lightvit_mm[{extras}]'"
        for extras in ('mmdet,mmseg', 'onedl')
    )
    SET_UP_EITHER = SET_UP
ENVIRONMENTS = ('.venv', '.venv-onedl')  # made by setup.sh in the checkout
PYTHONS = ((3, 10), (3, 12))  # the oldest and the newest that work
LOW, FULL = 1e9, 5e7  # bytes free on a disk
ON_CPU, NO_GPU, ANY = 'for the CPU', 'which finds no GPU', '999'
A_GPU = 'nvidia-smi lists a GPU'
DRIVER = (
    "python -c 'import torch; torch.cuda.init()' says why. If the driver is too old, update it, or "
    'install a build of the same torch for an older CUDA'
)
MARK = 'lightvit_mm.doctor '


class Line(NamedTuple):
    """A subject, its state, what was found, and what to do if the state is not ok."""

    subject: str
    state: str
    found: str
    cure: str = ''

    def __str__(self) -> str:
        line = f'{self.state:<8} {self.subject:<14} {self.found}'
        return f'{line}\n{"":<23} -> {self.cure}' if self.cure else line


class Probe(NamedTuple):
    """Result of an import: why it failed, empty if it did not, and what else was found."""

    why: str
    found: str = ''


class Module(NamedTuple):
    """A module of the stack.

    Attributes:
        imports: the name to import.
        originals: distributions that install it; for OpenMMLab, the original releases.
        fork: the maintained distribution, which installs the same files.
        needs: the module that it depends on.
        optional: whether the backbones work without it.
        bounds: the first version of an original that works, and the first later one that does not.
    """

    imports: str
    originals: tuple[str, ...]
    fork: str = ''
    needs: str = ''
    optional: bool = False
    bounds: tuple[str, str] = ('0', ANY)


MODULES = {
    'torch': Module('torch', ('torch',), bounds=('2.4', ANY)),
    'mmengine': Module(
        'mmengine.runner',
        ('mmengine', 'mmengine-lite'),
        'onedl-mmengine',
        needs='torch',
        bounds=('0.10.7', ANY),  # earlier ones fail with torch 2.5 and later
    ),
    'mmcv': Module(
        'mmcv.cnn',
        ('mmcv', 'mmcv-lite', 'mmcv-full'),
        'onedl-mmcv',
        needs='mmengine',
        bounds=('2.1.0', '2.2.0'),  # mmdet 3.3.0 and mmsegmentation 1.2.2 refuse 2.2.0
    ),
    'mmcv.ops': Module(
        'mmcv.ops', ('mmcv', 'mmcv-full'), 'onedl-mmcv', needs='mmcv', optional=True
    ),
    'mmdet': Module(
        'mmdet.apis',
        ('mmdet',),
        'onedl-mmdetection',
        needs='mmcv.ops',
        optional=True,
        bounds=('3.3.0', ANY),
    ),
    'mmseg': Module(
        'mmseg.apis',
        ('mmsegmentation',),
        'onedl-mmsegmentation',
        needs='mmcv.ops',
        optional=True,
        bounds=('1.2.2', ANY),
    ),
}
OTHERS = {
    'onnx': 'onnx onnxscript onnxruntime',
    'pkg_resources': 'pkg_resources',
    'torchvision': 'torchvision',  # last, since half of a broken one stays loaded
}
CURES = {  # by a part of the error of a failed import
    'torchvision': 'pip uninstall -y torchvision',
    'pkg_resources': "pip install 'setuptools<82'",
    'libGL': 'pip install --force-reinstall --no-deps opencv-python-headless',
}


def installed() -> dict[str, str]:
    """Return the versions of the installed distributions of both stacks and of torch."""
    versions = {}
    for module in MODULES.values():
        for name in filter(None, (*module.originals, module.fork)):
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
    return versions


def probe(names: Iterable[str]) -> dict[str, Probe]:
    """Import modules of the stack in a second process; after a crash, the rest in a new one."""
    probes: dict[str, Probe] = {}
    todo = list(names)
    while todo:
        done = subprocess.run(
            [sys.executable, __file__, '--probe', *todo],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors='replace',
        )
        for line in done.stdout.splitlines():
            if line.startswith(MARK):
                name, why, found = json.loads(line[len(MARK) :])
                probes[name] = Probe(why, found)
        todo = [name for name in todo if name not in probes]
        if todo:
            status = done.returncode
            ending = signal.Signals(-status).name if status < 0 else f'exit status {status}'
            probes[todo.pop(0)] = Probe(f'Python ended with {ending}')
    return probes


def _answer(names: Iterable[str]) -> None:
    """Import modules, and print the results for `probe`."""
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.realpath(path) != here]
    warnings.simplefilter('ignore')
    for name in names:
        why = found = ''
        try:
            for module in (MODULES[name].imports if name in MODULES else OTHERS[name]).split():
                importlib.import_module(module)
            if name == 'torch':
                found = _device()
            elif name == 'mmcv.ops':
                found = _compiled()
        except BaseException as error:
            why = f'{type(error).__name__}: {error}'
        print(f'\n{MARK}{json.dumps([name, why, found])}', flush=True)


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f'for {torch.cuda.get_device_name()}'
    return f'for CUDA {torch.version.cuda}, {NO_GPU}' if torch.version.cuda else ON_CPU


def _compiled() -> str:
    import torch
    from mmcv.ops import get_compiling_cuda_version, nms

    cuda = get_compiling_cuda_version()
    usable = cuda != 'not available' and torch.cuda.is_available()
    for device in ('cpu', 'cuda') if usable else ('cpu',):
        boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]], device=device)
        nms(boxes, torch.ones(1, device=device), 0.5)
    return ON_CPU if cuda == 'not available' else f'for CUDA {cuda}'


def examine_stack() -> list[Line]:
    """Check Python, torch, OpenMMLab's packages and what can break them; takes some seconds."""
    versions = installed()
    forks = any(module.fork in versions for module in MODULES.values())
    cure = SET_UP_FORKS if forks else SET_UP
    made = [name for name in ENVIRONMENTS if (CHECKOUT / name / 'lightvit_mm/stamp').exists()]
    if made and not versions and not CHECKOUT.samefile(Path(sys.prefix).parent):
        cure = f'source {made[0]}/bin/activate'
    stack = _stack(versions, cure)
    probes = probe([*MODULES, *OTHERS] if stack.state == OK else ['torch'])
    lines = {'Python': _python(), 'stack': stack}
    for name, module in MODULES.items():
        blamed = lines[module.needs or 'Python']
        if module.fork and stack.state != OK:
            blamed = stack
        lines[name] = _module(name, versions, probes.get(name), blamed, cure)
    lines |= _for_the_gpu(lines, probes, 'onedl-mmcv' if forks else 'mmcv', cure)
    others = [_other(name, probes[name], forks) for name in OTHERS if name in probes]
    return [*lines.values(), *others]


def examine() -> list[Line]:
    """Check everything."""
    return [*examine_stack(), _disk(), _compiler()]


def explain(error: Exception) -> str:
    """Describe what is wrong with the stack if an import failed because of it; else return ''."""
    if isinstance(error, ImportError):
        to_blame = (error.name or '').partition('.')[0] != 'lightvit_mm'
    else:  # a refused version is an AssertionError, half a torchvision a RuntimeError
        to_blame = any(
            frame.f_code.co_name == '<module>'
            and frame.f_globals.get('__name__', '').partition('.')[0] in {*MODULES, *OTHERS}
            for frame, _ in traceback.walk_tb(error.__traceback__)
        )
    lines = [line for line in examine_stack() if line.state != OK] if to_blame else []
    if not lines:
        return ''
    return '\n'.join([f'{type(error).__name__}: {error}', *map(str, lines), f'All: {COMMAND}'])


def _python() -> Line:
    found = f'{sys.version.split()[0]}, {sys.executable}'
    first, last = ('.'.join(map(str, version)) for version in PYTHONS)
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return Line('Python', OK, found)
    return Line(
        'Python', BROKEN, f'{found}; {first} to {last} work', f'PYTHON=python{last} {SET_UP}'
    )


def _stack(versions: dict[str, str], cure: str) -> Line:
    """Check which stack is installed, and that it is only one."""
    modules = [module for module in MODULES.values() if module.fork]
    originals = {name for module in modules for name in module.originals if name in versions}
    forks = {module.fork for module in modules if module.fork in versions}
    twice = any(len(originals.intersection(module.originals)) > 1 for module in modules)
    if twice or (originals and forks):
        names = sorted(originals) + sorted(forks)
        mixed = ', '.join(f'{name} {versions[name]}' for name in names)
        remedy = f'pip uninstall -y {" ".join(names)}; {SET_UP_EITHER}'
        return Line('stack', BROKEN, f'mixed, they overwrite one another: {mixed}', remedy)
    if forks:
        return Line('stack', OK, 'onedl, the maintained forks')
    if originals:
        return Line('stack', OK, 'openmmlab, the original releases')
    return Line('stack', BROKEN, 'no package of OpenMMLab is installed', cure)


def _module(
    name: str, versions: dict[str, str], probed: Probe | None, blamed: Line, cure: str
) -> Line:
    """Check a module of the stack; ``blamed`` is the line of what it depends on."""
    module = MODULES[name]
    owners = [owner for owner in (*module.originals, module.fork) if owner in versions]
    if not owners:
        return Line(name, NOTE if module.optional else BROKEN, 'not installed', cure)
    owner = owners[0]
    found = f'{owner} {versions[owner]}'
    if probed is None or blamed.state != OK:
        return Line(name, BROKEN, f'{found}, not tried: fix {blamed.subject} first')
    first, end = module.bounds
    if owner != module.fork and not _numbers(first) <= _numbers(versions[owner]) < _numbers(end):
        until = f', before {end}' if end != ANY else ''
        return Line(name, BROKEN, f'{found}, but this needs {first} or later{until}', cure)
    if probed.why:
        return Line(name, BROKEN, f'{found} fails: {_short(probed.why)}', _cure(probed.why, cure))
    return Line(name, OK, ', '.join(filter(None, (found, probed.found))))


def _for_the_gpu(
    lines: dict[str, Line], probes: dict[str, Probe], mmcv: str, cure: str
) -> dict[str, Line]:
    """The lines of torch and mmcv's operators where they leave a GPU unused."""
    again = f'{mmcv}; {cure}'
    if INSTALLED:  # pip compiles mmcv with the machine's nvcc, and keeps the wheel
        again = f'{mmcv}; pip cache remove {mmcv}; with nvcc on the PATH: {cure}'
    torch, ops = lines['torch'], lines['mmcv.ops']
    device = probes['torch'].found
    without = device == ON_CPU
    if torch.state == OK and (without or device.endswith(NO_GPU)) and _has_gpu():
        remedy = f'pip uninstall -y torch {again}' if without else DRIVER
        return {'torch': torch._replace(state=NOTE, found=f'{torch.found}; {A_GPU}', cure=remedy)}
    if without or device.endswith(NO_GPU):
        return {}
    if 'no kernel image' in ops.found:
        remedy = f'unset TORCH_CUDA_ARCH_LIST; pip uninstall -y {again}'
        return {'mmcv.ops': ops._replace(cure=remedy)}
    if ops.state == OK and probes['mmcv.ops'].found == ON_CPU:
        found = f'compiled {ON_CPU} only, and torch is {device}'
        return {'mmcv.ops': Line('mmcv.ops', NOTE, found, f'pip uninstall -y {again}')}
    return {}


def _has_gpu() -> bool:
    """Check whether the driver of NVIDIA lists a GPU."""
    try:
        asked = subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True)
    except OSError:
        return False
    return asked.stdout.startswith('GPU')


def _other(name: str, probed: Probe, forks: bool) -> Line:
    """Check a module outside the stack, which may be absent."""
    absent = probed.why.startswith(f"ModuleNotFoundError: No module named '{name}")
    if not probed.why:
        return Line(name, OK, 'can be imported')
    if name == 'onnx':
        found = 'not installed' if absent else _short(probed.why)
        extra = "'lightvit_mm[onnx]'" if INSTALLED else "-e '.[onnx]'"
        return Line(name, NOTE, f'{found}; for tools/export.py', f'pip install {extra}')
    if absent and (name == 'torchvision' or forks):
        return Line(name, OK, 'not installed, and not needed')
    found = 'not installed, and mmengine needs it' if absent else f'fails: {_short(probed.why)}'
    return Line(name, BROKEN, found, _cure(name, SET_UP))


def _disk() -> Line:
    """Check the fullest disk of those for work folders, temporary files and cached wheels."""
    cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~')
    free = {path: shutil.disk_usage(path).free for path in (cache, tempfile.gettempdir(), '.')}
    path = min(free, key=lambda path: free[path])
    found = f'{free[path] / 1e9:.1f} GB free in {os.path.abspath(path)}'
    if free[path] >= LOW:
        return Line('disk', OK, found)
    state = BROKEN if free[path] < FULL else NOTE
    remedy = 'make room, or set --work-dir, TMPDIR and XDG_CACHE_HOME to folders elsewhere'
    return Line('disk', state, found, remedy)


def _compiler() -> Line:
    """Check the C++ compiler, which the build of mmcv and torch.compile need."""
    name = shlex.split(os.environ.get('CXX', 'c++'))[0]
    if found := shutil.which(name):
        return Line('compiler', OK, found)
    remedy = 'apt install g++ (Debian, Ubuntu), or name one with CXX=...'
    return Line('compiler', NOTE, f'no {name}; for building mmcv and torch.compile', remedy)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r'\d+', version.partition('+')[0])[:3]))


def _short(why: str) -> str:
    return why.strip().partition('\n')[0][:200]


def _cure(why: str, set_up: str) -> str:
    for text, cure in CURES.items():
        if text in why:
            return cure
    if re.search("No module named '(?!mm|torch)", why) and not INSTALLED:
        stack = '-onedl' if set_up == SET_UP_FORKS else ''
        return f'pip install -r tools/requirements{stack}.txt'
    return set_up


def main() -> int:
    """Print a line per subject; return 1 if something is broken."""
    parser = argparse.ArgumentParser(prog=COMMAND, description='Check the environment.')
    parser.add_argument('--probe', nargs='+', help=argparse.SUPPRESS)
    if names := parser.parse_args().probe:
        _answer(names)
        return 0
    lines = examine()
    print(*lines, sep='\n')
    broken = sum(line.state == BROKEN for line in lines)
    print(f'{broken} broken: begin at the top' if broken else 'nothing is broken')
    return int(bool(broken))


if __name__ == '__main__':
    sys.exit(main())
