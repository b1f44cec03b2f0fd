"""CUDA for the build of mmcv: whether it is wanted, for which GPUs, and with which nvcc."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

# What torch accepts in TORCH_CUDA_ARCH_LIST: 8.6, 9.0a, 9.0+PTX, Hopper.
ARCHITECTURE = re.compile(r'(\d+\.\d[af]?|[A-Z][a-z]+(\+Tegra)?)(\+PTX)?')
PACKAGED = 13  # the first major version of which the package index has a whole nvcc
# Known to be defined under the same name, or used before their specialisation, in two files.
CLASHES = (
    {  # divideUP, threadsPerBlock
        'box_iou_quadri_cuda',
        'box_iou_rotated_cuda',
        'carafe_cuda',
        'nms_quadri_cuda',
        'nms_rotated_cuda',
    },
    {  # Point
        'box_iou_quadri_cuda',
        'box_iou_rotated_cuda',
        'convex_iou',
        'iou3d_cuda',
        'min_area_polygons',
        'nms_quadri_cuda',
        'nms_rotated_cuda',
    },
    {'carafe_cuda', 'carafe_naive_cuda'},  # Loc2Index
    {'points_in_boxes_cuda', 'roiaware_pool3d_cuda', 'roipoint_pool3d_cuda'},  # check_pt_in_box3d
    {'scatter_points_cuda', 'voxelization_cuda'},  # reduce_t
    {'bias_act_cuda', 'filtered_lrelu', 'upfirdn2d_kernel'},  # InternalType
    {'sparse_indice', 'spconv_ops_cuda'},  # CreateSubMIndicePairFunctor
)
GROUPS = 8


class CudaError(Exception):
    """CUDA operators cannot be compiled: why, and what to do."""

    def __init__(self, why: str, cure: str) -> None:
        super().__init__(why)
        self.why, self.cure = why, cure


class Cuda(NamedTuple):
    """What CUDA operators are compiled for.

    Attributes:
        version: CUDA version of torch, such as 13.0.
        architectures: compute capabilities, such as 8.6 or 9.0+PTX.
        listed: whether the user listed them; else they are those of the GPUs that are there.
        gpu: whether a GPU is there.
    """

    version: str
    architectures: tuple[str, ...]
    listed: bool
    gpu: bool

    @property
    def key(self) -> str:
        """A part of a file name."""
        names = sorted({re.sub(r'\W', '', name).lower() for name in self.architectures})
        return f'cu{self.version}-' + '-'.join(f'sm{name}' for name in names)


def is_forced() -> bool:
    """Check whether the user asks for CUDA operators, with a GPU or without."""
    return os.environ.get('FORCE_CUDA') == '1'


def wanted() -> Cuda | None:
    """Return what CUDA operators are wanted for; None without a GPU, unless the user asks for them.

    Raises:
        CudaError: the user asks for them, and torch is built without CUDA, or nothing says for
            which GPUs.
    """
    import torch

    gpu = torch.cuda.is_available()
    if not (gpu or is_forced()):
        return None
    version = torch.version.cuda
    if version is None:
        if not is_forced():  # another kind of GPU
            return None
        raise CudaError(
            f'FORCE_CUDA=1, but torch {torch.__version__} is built without CUDA',
            'install a CUDA build of the same torch in this environment, or unset FORCE_CUDA',
        )
    listed = os.environ.get('TORCH_CUDA_ARCH_LIST', '').replace(' ', ';').strip(';')
    if listed and listed != 'native':
        names = tuple(filter(None, listed.split(';')))
        for name in names:
            if not ARCHITECTURE.fullmatch(name):
                raise CudaError(
                    f'TORCH_CUDA_ARCH_LIST has {name}, which is no compute capability',
                    'list those of your GPUs, such as TORCH_CUDA_ARCH_LIST="8.6;9.0"',
                )
        return Cuda(version, names, True, gpu)
    if not gpu:
        raise CudaError(
            'FORCE_CUDA=1, but there is no GPU here to take the compute capability from',
            'list those of your GPUs, such as TORCH_CUDA_ARCH_LIST="8.6;9.0"',
        )
    chips = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    return Cuda(version, tuple(f'{a}.{b}' for a, b in sorted(chips)), False, gpu)


def compile_environment(cuda: Cuda, cache: Path) -> dict[str, str]:
    """Return the variables with which torch compiles CUDA operators; may download nvcc.

    An nvcc of the machine is taken if it has torch's major version, which torch insists on.

    Args:
        cuda: what to compile for.
        cache: folder that keeps a downloaded nvcc.

    Raises:
        CudaError: there is no such nvcc, and none can be had.
    """
    flags = {'FORCE_CUDA': '1'}
    if cuda.listed:
        flags['TORCH_CUDA_ARCH_LIST'] = ';'.join(cuda.architectures)
    home, found = _installed_home(cuda.version)
    if home is None:
        missing = f'only nvcc {found}' if found else 'no nvcc with its headers'
        why = f'there is {missing}, and torch is built for CUDA {cuda.version}'
        cure = f'install the CUDA toolkit {cuda.version} and set CUDA_HOME to its folder'
        if int(_major(cuda.version)) < PACKAGED:
            raise CudaError(why, cure)
        home = _download(cuda.version, cache)
        if home is None:
            raise CudaError(f'{why}; its download failed', f'{cure}, or check the connection')
    if not (home / 'include/cublas_v2.h').exists() and (headers := _torch_headers()):
        others = os.environ.get('CPATH')
        flags['CPATH'] = os.pathsep.join(filter(None, (str(headers), others)))
    return {**flags, 'CUDA_HOME': str(home)}


def _installed_home(version: str) -> tuple[Path | None, str]:
    """The machine's CUDA_HOME for a version, if it has one, and else the version of its nvcc."""
    from torch.utils.cpp_extension import CUDA_HOME

    homes = [Path(CUDA_HOME)] if CUDA_HOME else []
    if not os.environ.get('CUDA_HOME'):  # nvcc on the PATH may be a script, which misleads torch
        homes.append(Path(f'/usr/local/cuda-{version}'))
    found = ''
    for home in homes:
        nvcc = _nvcc_version(home / 'bin/nvcc')
        headers = [
            *home.glob('include/cuda_runtime.h'),
            *home.glob('targets/*/include/cuda_runtime.h'),
        ]
        if _major(nvcc) == _major(version) and headers:
            return home, nvcc
        found = found or (nvcc if _major(nvcc) != _major(version) else '')
    return None, found


def _major(version: str) -> str:
    return version.partition('.')[0]


def _nvcc_version(nvcc: Path) -> str:
    try:
        told = subprocess.run([nvcc, '--version'], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ''
    match = re.search(r'release (\d+\.\d+)', told.stdout)
    return match[1] if match else ''


def _torch_headers() -> Path | None:
    """The folder of cuBLAS's headers and others that torch's own headers include."""
    import torch

    site = Path(torch.__file__).parents[1]
    return next((file.parent for file in site.glob('nvidia/cu*/include/cublas_v2.h')), None)


def _download(version: str, cache: Path) -> Path | None:
    """Put nvcc and what it needs into the cache, and return its CUDA_HOME; None if that fails."""
    folder = cache / f'cuda-{version}'
    home = folder / f'nvidia/cu{_major(version)}'
    if _nvcc_version(home / 'bin/nvcc'):
        return home
    shutil.rmtree(folder, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='cuda-', dir=cache) as scratch:
        made = Path(scratch, folder.name)
        command = [sys.executable, '-m', 'pip', 'install', '--progress-bar', 'off', '--no-compile']
        command += ['--target', str(made), f'cuda-toolkit[nvcc,cccl]=={version}.*']
        if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
            return None
        # Where torch and the linker look.
        inside = made / home.relative_to(folder)
        (inside / 'lib64').symlink_to('lib')
        for library in (inside / 'lib').glob('libcudart.so.*'):
            (inside / 'lib/libcudart.so').symlink_to(library.name)
        with contextlib.suppress(OSError):  # another build was faster
            made.rename(folder)
    return home if _nvcc_version(home / 'bin/nvcc') else None


def groups(files: list[Path]) -> list[list[Path]]:
    """Distribute CUDA files over groups of which no two files clash."""
    made: list[list[Path]] = [[] for _ in range(GROUPS)]
    for file in files:
        others = set().union(*(names for names in CLASHES if file.stem in names)) - {file.stem}
        free = [group for group in made if not others & {member.stem for member in group}]
        min(free, key=len).append(file)
    return [group for group in made if group]
