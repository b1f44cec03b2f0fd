"""What mmcv is compiled for, with which nvcc, and in which files. Nothing is compiled."""

import os
import subprocess
import sys
import zipfile

import pytest
import torch
from helpers.repository import REPOSITORY
from torch.utils import cpp_extension

sys.path.append(str(REPOSITORY / 'tools'))
import _cuda
import build_mmcv
from _cuda import Cuda, CudaError

VERSION = '13.97'  # no machine has it
FOR_H100 = Cuda(VERSION, ('9.0',), listed=True, gpu=False)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A CUDA build of torch without a GPU, and no nvcc; a package index without network."""
    for name in ('FORCE_CUDA', 'TORCH_CUDA_ARCH_LIST', 'CPATH'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path / 'index'))
    monkeypatch.setattr(torch.version, 'cuda', VERSION)
    monkeypatch.setattr(torch, '__file__', str(tmp_path / 'site/torch/__init__.py'))
    monkeypatch.setattr(cpp_extension, 'CUDA_HOME', None)
    headers = tmp_path / 'site/nvidia/cu13/include/cublas_v2.h'
    headers.parent.mkdir(parents=True)
    headers.touch()
    return monkeypatch


def put_toolkit(folder, version, headers=('cuda_runtime.h', 'cublas_v2.h')):
    nvcc = folder / 'bin/nvcc'
    nvcc.parent.mkdir(parents=True)
    (folder / 'include').mkdir()
    for name in headers:
        (folder / 'include' / name).touch()
    nvcc.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {version}, V{version}.1"')
    nvcc.chmod(0o755)
    return folder


def put_gpus(machine, *capabilities):
    machine.setattr(torch.cuda, 'is_available', lambda: True)
    machine.setattr(torch.cuda, 'device_count', lambda: len(capabilities))
    machine.setattr(torch.cuda, 'get_device_capability', lambda i: capabilities[i])


def test_nothing_is_wanted_without_a_gpu(machine):
    machine.setenv('TORCH_CUDA_ARCH_LIST', '9.0')
    assert _cuda.wanted() is None


def test_the_gpus_that_are_there(machine):
    put_gpus(machine, (9, 0), (8, 6), (9, 0))
    cuda = _cuda.wanted()
    assert cuda == Cuda(VERSION, ('8.6', '9.0'), listed=False, gpu=True)
    assert cuda.key == f'cu{VERSION}-sm86-sm90'


@pytest.mark.parametrize('listed', ['9.0+PTX;8.0', ' 9.0+PTX 8.0'])
def test_a_list_of_the_user(machine, listed):
    put_gpus(machine, (7, 5))
    machine.setenv('TORCH_CUDA_ARCH_LIST', listed)
    cuda = _cuda.wanted()
    assert cuda == Cuda(VERSION, ('9.0+PTX', '8.0'), listed=True, gpu=True)
    assert cuda.key == f'cu{VERSION}-sm80-sm90ptx'


@pytest.mark.parametrize(
    ('listed', 'why'),
    [('', 'there is no GPU here'), ('native', 'there is no GPU here'), ('sm_90', 'has sm_90')],
)
def test_asked_for_without_knowing_for_what(machine, listed, why):
    machine.setenv('FORCE_CUDA', '1')
    machine.setenv('TORCH_CUDA_ARCH_LIST', listed)
    with pytest.raises(CudaError, match=why) as caught:
        _cuda.wanted()
    assert 'TORCH_CUDA_ARCH_LIST="8.6;9.0"' in caught.value.cure


def test_torch_without_cuda(tmp_path):
    if torch.version.cuda:
        pytest.skip('this torch is built for CUDA')
    done = subprocess.run(
        [sys.executable, REPOSITORY / 'tools/build_mmcv.py', 'install'],
        env={**os.environ, 'FORCE_CUDA': '1', 'XDG_CACHE_HOME': str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    why, cure = done.stderr.splitlines()[-2:]
    assert why == f'WHY: FORCE_CUDA=1, but torch {torch.__version__} is built without CUDA'
    assert cure.startswith('CURE: install a CUDA build')
    assert not list(tmp_path.iterdir())


def test_an_nvcc_of_the_same_major_version(machine, tmp_path):
    home = put_toolkit(tmp_path / 'cuda', '13.2')
    machine.setattr(cpp_extension, 'CUDA_HOME', str(home))
    expected = {'FORCE_CUDA': '1', 'CUDA_HOME': str(home), 'TORCH_CUDA_ARCH_LIST': '8.0;9.0+PTX'}
    listed = FOR_H100._replace(architectures=('8.0', '9.0+PTX'))
    assert _cuda.compile_environment(listed, tmp_path / 'cache') == expected
    del expected['TORCH_CUDA_ARCH_LIST']  # torch asks the GPUs itself
    found = FOR_H100._replace(listed=False)
    assert _cuda.compile_environment(found, tmp_path / 'cache') == expected
    (home / 'include/cublas_v2.h').unlink()
    expected['CPATH'] = f'{tmp_path}/site/nvidia/cu13/include'
    assert _cuda.compile_environment(found, tmp_path / 'cache') == expected
    (home / 'targets/x86_64-linux').mkdir(parents=True)  # as conda's
    (home / 'include').rename(home / 'targets/x86_64-linux/include')
    assert _cuda.compile_environment(found, tmp_path / 'cache') == expected


def put_packaged_nvcc(index, version):
    index.mkdir(exist_ok=True)
    name = f'cuda_toolkit-{version}.3'
    metadata = f'Metadata-Version: 2.1\nName: cuda-toolkit\nVersion: {version}.3\n'
    with zipfile.ZipFile(index / f'{name}-py3-none-any.whl', 'w') as wheel:
        extras = 'Provides-Extra: nvcc\nProvides-Extra: cccl\n'
        wheel.writestr(f'{name}.dist-info/METADATA', metadata + extras)
        wheel.writestr(f'{name}.dist-info/WHEEL', 'Wheel-Version: 1.0\nTag: py3-none-any\n')
        wheel.writestr('nvidia/cu13/lib/libcudart.so.13', '')
        nvcc = zipfile.ZipInfo('nvidia/cu13/bin/nvcc')
        nvcc.external_attr = 0o100755 << 16
        wheel.writestr(nvcc, f'#!/bin/sh\necho "release {version}, V{version}.88"')
        wheel.writestr(f'{name}.dist-info/RECORD', '')


@pytest.mark.parametrize(
    ('version', 'headers'),
    [('12.8', ['cuda_runtime.h']), (VERSION, [])],
    ids=['major version that torch refuses', 'script on the PATH'],
)
def test_nvcc_from_the_package_index(machine, tmp_path, version, headers):
    home = put_toolkit(tmp_path / 'cuda', version, headers)
    machine.setattr(cpp_extension, 'CUDA_HOME', str(home))
    machine.setenv('CPATH', '/opt/include')
    put_packaged_nvcc(tmp_path / 'index', VERSION)
    cache = tmp_path / 'cache'
    flags = _cuda.compile_environment(FOR_H100, cache)
    home = cache / f'cuda-{VERSION}/nvidia/cu13'
    assert flags == {
        'FORCE_CUDA': '1',
        'TORCH_CUDA_ARCH_LIST': '9.0',
        'CUDA_HOME': str(home),
        'CPATH': f'{tmp_path}/site/nvidia/cu13/include:/opt/include',
    }
    assert os.access(home / 'bin/nvcc', os.X_OK)
    assert (home / 'lib64/libcudart.so').exists()
    assert [folder.name for folder in cache.iterdir()] == [f'cuda-{VERSION}']
    (tmp_path / 'index').rename(tmp_path / 'gone')
    assert _cuda.compile_environment(FOR_H100, cache) == flags


@pytest.mark.parametrize(
    ('version', 'installed', 'why'),
    [
        (VERSION, '', f'no nvcc with its headers, and torch is built for CUDA {VERSION}; its down'),
        # The index has no nvcc for this one.
        ('12.97', '', 'no nvcc with its headers, and torch is built for CUDA 12.97'),
        ('12.97', '11.8', 'only nvcc 11.8, and torch is built for CUDA 12.97'),
    ],
)
def test_no_nvcc(machine, tmp_path, version, installed, why):
    if installed:
        home = put_toolkit(tmp_path / 'cuda', installed)
        machine.setattr(cpp_extension, 'CUDA_HOME', str(home))
    with pytest.raises(CudaError) as caught:
        _cuda.compile_environment(FOR_H100._replace(version=version), tmp_path / 'cache')
    assert caught.value.why.startswith(f'there is {why}')
    assert caught.value.cure.startswith(f'install the CUDA toolkit {version}')


def test_operators_for_the_cpu_where_there_is_no_nvcc(machine, tmp_path, capsys):
    machine.setenv('XDG_CACHE_HOME', str(tmp_path))
    release = build_mmcv.RELEASES['openmmlab']
    built = build_mmcv.cache_slot(release, None) / 'mmcv-2.1.0-any.whl'
    built.parent.mkdir(parents=True)
    with zipfile.ZipFile(built, 'w') as wheel:
        wheel.writestr('mmcv/_ext.so', '')
    cuda = Cuda('12.97', ('9.0',), listed=False, gpu=True)
    assert build_mmcv.cache_slot(release, cuda) != built.parent
    assert build_mmcv.get_wheel(release, cuda) == (built, None)
    assert 'NOTE: mmcv gets operators for the CPU only, since there is' in capsys.readouterr().out
    machine.setenv('FORCE_CUDA', '1')
    with pytest.raises(CudaError, match='no nvcc'):
        build_mmcv.get_wheel(release, cuda)


def test_clashing_files_are_not_united(tmp_path):
    stems = set().union(*_cuda.CLASHES) | {f'op{i}_cuda' for i in range(40)}
    for folder, suffix, names in (
        ('cuda', '.cu', stems),
        ('cpu', '.cpp', ['roi_align', 'nms', 'nms_rotated', 'sparse']),
        ('', '.cpp', ['pybind', 'nms', 'roi_align', 'info']),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in names:
            (tmp_path / folder / f'{name}{suffix}').touch()
    build_mmcv.unite_all(tmp_path)
    groups = [
        {line.split('"')[1].removesuffix('.inc') for line in file.read_text().splitlines()}
        for file in (tmp_path / 'cuda').glob('*.cu')
    ]
    assert len(groups) == _cuda.GROUPS
    assert sorted(name for group in groups for name in group) == sorted(stems)
    assert not [group for group in groups for names in _cuda.CLASHES if len(group & names) > 1]
    # roi_align clashes with others: it stays as it is.
    kernels = sorted(file.name for file in (tmp_path / 'cpu').glob('*.cpp'))
    assert kernels == ['roi_align.cpp', 'united_kernels_0.cpp', 'united_kernels_1.cpp']
    dispatch = (tmp_path / 'united_dispatch_0.cpp').read_text().splitlines()
    assert dispatch[0] == '#include <torch/extension.h>'
    assert dispatch[1:] == ['#include "info.inc"', '#include "nms.inc"', '#include "pybind.inc"']
