"""A check keeps what it found, whatever its parts do, and says what they did."""

import json
import multiprocessing
import os
import runpy
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from gpu import running
from gpu.context import Settings
from gpu.record import Check, Failure
from gpu.running import check_gpu
from helpers import gpu_parts
from helpers.gpu_parts import part
from helpers.repository import REPOSITORY, run_tool

from lightvit_mm.errors import UserError

CPU = Settings('cpu', quick=True)
FORK = multiprocessing.get_context('fork')


@pytest.fixture(autouse=True)
def _quick_processes(monkeypatch):
    """Processes that start at once; what they run here does not need CUDA."""
    monkeypatch.setattr(running, 'PROCESSES', FORK)
    monkeypatch.setattr(running, 'LEAST_SECONDS', 0.0)


def findings(folder: Path) -> dict[str, list[dict]]:
    content = json.loads((folder / 'gpu_check.json').read_text())
    return {each['name']: each['findings'] for each in content['parts']}


def test_a_part_that_hangs_is_stopped_and_the_others_run(tmp_path):
    parts = {'hang': part(gpu_parts.hang, 1), 'find': part(gpu_parts.find, 9)}
    report = check_gpu(CPU, str(tmp_path), 1, parts=parts)  # 6 seconds for the first
    hung, found = report.parts
    assert hung.state == 'stopped at the end of its time'
    assert found.state == 'done'
    check, row, failure = findings(tmp_path)['hang']
    assert (check['kind'], check['name']) == ('check', 'found by it')
    assert failure['kind'] == 'failure'
    assert failure['name'] == 'a compiler'
    assert failure['error'].startswith('was stopped after ')
    assert [each['name'] for each in findings(tmp_path)['find']] == ['found by it']
    with pytest.raises(ProcessLookupError):
        os.kill(row['cells']['id'], 0)


def test_a_part_that_dies_or_raises_leaves_the_rest(tmp_path):
    parts = {'die': part(gpu_parts.die, jobs=('a', 'b')), 'raises': part(gpu_parts.raises)}
    report = check_gpu(CPU, str(tmp_path), 5, parts=parts)
    died, raised = report.parts
    names = sorted(each.name for each in died.findings)
    assert names == ['finding', 'finding', 'found by a', 'found by b']
    assert ['status -9' in each.error for each in report.failures] == [True, True, False]
    assert [type(each) for each in raised.findings] == [Check, Failure, Check]
    assert 'RuntimeError: no kernel image' in raised.findings[1].error
    tables = (tmp_path / 'gpu_check.md').read_text()
    assert '2 of 2 checks passed' in tables
    assert 'FAILED a launch: RuntimeError: no kernel image' in tables
    assert 'Traceback' in (tmp_path / 'gpu_check.log').read_text()


def test_without_time_a_part_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(running, 'LEAST_SECONDS', 1e6)
    (result,) = check_gpu(CPU, str(tmp_path), 1, parts={'find': part(gpu_parts.find)}).parts
    assert result.state.startswith('not run: ')
    assert 'not run: ' in (tmp_path / 'gpu_check.md').read_text()


def test_results_are_there_after_a_kill(tmp_path):
    parts = {'find': part(gpu_parts.find), 'hang': part(gpu_parts.hang)}
    work = partial(check_gpu, CPU, str(tmp_path), 10, parts=parts)
    process = FORK.Process(target=work)
    process.start()
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = findings(tmp_path) if (tmp_path / 'gpu_check.json').exists() else {}
        if len(found.get('hang', [])) == 2:
            break
        time.sleep(0.05)
    process.kill()
    process.join()
    assert [each['kind'] for each in findings(tmp_path)['find']] == ['check']
    assert [each['kind'] for each in findings(tmp_path)['hang']] == ['check', 'row']
    assert '1 of 1 checks passed' in (tmp_path / 'gpu_check.md').read_text()
    worker = found['hang'][1]['cells']['id']
    while Path(f'/proc/{worker}').exists() and time.monotonic() < end:
        time.sleep(0.05)  # it notices that it is alone
    assert not Path(f'/proc/{worker}').exists()


@pytest.mark.parametrize(('function', 'status'), [(gpu_parts.find, 0), (gpu_parts.miss, 1)])
def test_a_failed_check_gives_status_1(function, status, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(running, 'PARTS', {'one': part(function)})
    tool = str(REPOSITORY / 'tools/gpu_check.py')
    monkeypatch.setattr(sys, 'argv', [tool, '--device', 'cpu', '--work-dir', str(tmp_path)])
    monkeypatch.setattr(sys, 'path', [str(REPOSITORY / 'tools'), *sys.path])
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', os.environ.get('CUDA_VISIBLE_DEVICES', ''))
    try:
        runpy.run_path(tool, run_name='__main__')
        ended = 0
    except SystemExit as stop:
        ended = stop.code
    assert ended == status
    said = capsys.readouterr()
    assert f'{status} failures; results in {tmp_path}' in said.out
    assert ('a wrong kernel: 2.0e+00, at most 1.0e+00' in said.err) == bool(status)


def test_a_file_of_someone_else_stays(tmp_path):
    (tmp_path / 'gpu_check.md').write_text('My notes')
    with pytest.raises(UserError, match=r'gpu_check\.md exists'):
        check_gpu(CPU, str(tmp_path), 1, parts={'find': part(gpu_parts.find)})
    assert (tmp_path / 'gpu_check.md').read_text() == 'My notes'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--device', 'nonsense'], '--device nonsense: give cuda, cuda:1 or cpu'),
        (['--device', 'cpu', '--nuclei', 'nowhere'], '--nuclei nowhere is no folder'),
        (['--device', 'cpu', '--minutes', '0'], '--minutes 0: give more than 0'),
    ],
)
def test_mistakes_on_the_command_line(arguments, message, tmp_path):
    done = run_tool('tools/gpu_check.py', *arguments, '--work-dir', tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
