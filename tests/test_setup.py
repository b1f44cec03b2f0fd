"""The options of tools/setup.sh, and that it keeps the two stacks apart. Nothing is installed."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.repository import REPOSITORY

from lightvit_mm.doctor import MODULES

TOOLS = REPOSITORY / 'tools'
PATH = f'{Path(sys.executable).parent}:/usr/bin:/bin'


def bash(*arguments, **environment):
    return subprocess.run(
        ['bash', *map(str, arguments)],
        env={'PATH': PATH, 'HOME': '/nonexistent', **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize('script', ['setup.sh', 'test.sh', 'quickstart.sh'])
@pytest.mark.parametrize('option', [['--stack', 'torch'], ['--stack=torch']], ids=' '.join)
def test_a_stack_that_there_is_not(script, option):
    done = bash(TOOLS / script, *option)
    assert done.returncode == 1
    assert "there is no stack 'torch'" in done.stderr
    assert 'choose --stack openmmlab or --stack onedl' in done.stderr


def test_an_unknown_option():
    done = bash(TOOLS / 'setup.sh', '--stack', 'onedl', '--fast')
    assert (done.returncode, done.stdout) == (2, '')
    assert 'unknown option --fast' in done.stderr


@pytest.mark.parametrize(
    ('options', 'active', 'chosen'),
    [
        ([], '', '/.venv tools/requirements.txt'),
        (['--stack', 'onedl'], '', '/.venv-onedl tools/requirements-onedl.txt'),
        # An environment of the other stack is not touched even if it is active.
        (['--stack=onedl', '-k', 'x'], '.venv', '/.venv-onedl tools/requirements-onedl.txt -k x'),
        (['-k', 'x'], '.venv-onedl', '/.venv tools/requirements.txt -k x'),
    ],
)
def test_each_stack_has_an_environment(options, active, chosen):
    script = (
        f'. {TOOLS}/setup.sh; take_stack "$@"; choose_stack; choose_python; '
        'echo "${ENV#"$ROOT"} $REQUIREMENTS${REST[*]:+ ${REST[*]}}"'
    )
    environment = {'VIRTUAL_ENV': str(REPOSITORY / active)} if active else {}
    done = bash('-c', script, 'bash', *options, **environment)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.strip() == chosen


@pytest.mark.parametrize(
    ('options', 'found', 'named', 'uninstalled'),
    [
        ([], ['onedl_mmcv-2.3.6'], 'onedl_mmcv-2.3.6', 'onedl_mmcv'),
        (
            ['--stack', 'onedl'],
            ['mmcv-2.1.0', 'mmdet-3.3.0'],
            'mmcv-2.1.0, mmdet-3.3.0',
            'mmcv mmdet',
        ),
        # In a mixed environment the files of both stacks are damaged: all must go.
        ([], ['mmdet-3.3.0', 'onedl_mmcv-2.3.6'], 'onedl_mmcv-2.3.6', 'mmdet onedl_mmcv'),
    ],
)
def test_the_other_stack_is_not_overwritten(tmp_path, options, found, named, uninstalled):
    python = tmp_path / 'bin/python'
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    for name in found:
        (tmp_path / f'lib/python3.11/site-packages/{name}.dist-info').mkdir(parents=True)
    done = bash(TOOLS / 'setup.sh', *options, VIRTUAL_ENV=str(tmp_path))
    assert done.returncode == 1
    assert f'{tmp_path} has {named}, of which --stack' in done.stderr
    assert done.stderr.rstrip().endswith(f'pip uninstall -y {uninstalled}')
    assert not (tmp_path / 'lightvit_mm').exists()


@pytest.mark.parametrize(
    ('listed', 'forced', 'chosen'),
    [
        ('', '', 'torch==2.13.0+cpu'),
        # The CPU build counts as newer than 2.13.0, so pip has to be kept from it.
        ('GPU 0: NVIDIA H100 (UUID: GPU-1)', '', 'torch==2.13.0,!=2.13.0+cpu'),
        ('', '1', 'torch==2.13.0,!=2.13.0+cpu'),
    ],
    ids=['CPU', 'GPU', 'forced'],
)
def test_the_build_of_torch(tmp_path, listed, forced, chosen):
    smi = tmp_path / 'nvidia-smi'
    smi.write_text(f'#!/bin/sh\necho "{listed}"')
    smi.chmod(0o755)
    script = f'. {TOOLS}/setup.sh; look_for_gpu; PY=echo; install_torch'
    done = bash('-c', script, PATH=f'{tmp_path}:{PATH}', FORCE_CUDA=forced)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.split()[-1] == chosen


def test_a_compiler_of_cuda_that_ran_out_of_memory(tmp_path):
    log = tmp_path / 'log'
    log.write_text("nvcc error   : 'cicc' died due to signal 9 (Kill signal)\n")
    script = (
        f'. {TOOLS}/setup.sh; ENV={tmp_path} CACHE={tmp_path} TMP={tmp_path} LOG={log}; explain 1'
    )
    done = bash('-c', script)
    assert done.returncode == 1
    assert 'out of memory' in done.stderr
    assert 'MAX_JOBS=1' in done.stderr


def test_both_stacks_are_pinned_whole(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    releases = runpy.run_path(str(TOOLS / 'build_mmcv.py'))['RELEASES']
    for stack, file, expected in [
        ('openmmlab', 'requirements.txt', {m.originals[0] for m in MODULES.values() if m.fork}),
        ('onedl', 'requirements-onedl.txt', {m.fork for m in MODULES.values() if m.fork}),
    ]:
        lines = (TOOLS / file).read_text().splitlines()
        assert '-r requirements-common.txt' in lines
        pinned = {match[1] for line in lines if (match := re.match(r'([\w-]+)==[\d.]+$', line))}
        assert pinned | {releases[stack].name} == expected
    assert releases['onedl'].stem == 'onedl_mmcv-2.3.6'
    assert releases['openmmlab'].stem == 'mmcv-2.1.0'
