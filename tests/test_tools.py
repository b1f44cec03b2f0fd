"""User input never becomes part of shell or Python source."""

import os
import re
import subprocess

import pytest
from helpers.repository import REPOSITORY

PYTHON = sorted([*(REPOSITORY / 'tools').glob('*.py'), *(REPOSITORY / 'lightvit_mm').rglob('*.py')])
SHELL = sorted([*(REPOSITORY / 'tools').glob('*.sh'), REPOSITORY / '.ci/run'])
RUNS_TEXT = r'shell\s*=\s*True|os\.(system|popen|exec\w*|spawn\w*)\(|\b(eval|exec)\(|getoutput\('


def test_no_python_of_ours_runs_text():
    assert PYTHON
    pattern = re.compile(RUNS_TEXT)
    # model.eval() and the like are harmless methods.
    found = [
        f'{file.name}: {line.strip()}'
        for file in PYTHON
        for line in file.read_text().splitlines()
        if pattern.search(re.sub(r'[\w)]\.eval\(', '', line))
    ]
    assert not found


def test_no_shell_script_of_ours_runs_text():
    assert SHELL
    for file in SHELL:
        text = file.read_text()
        assert not re.search(r'\beval\b|\b(ba)?sh -c\b|^\s*source <|\$\(\s*\$', text, re.M), file
        assert 'set -euo pipefail' in text or text.count('\n') <= 2, file
        # Positional arguments are quoted wherever they are passed on.
        for line in text.splitlines():
            bare = re.sub(r'"[^"]*"', '', line.split(' #')[0])
            assert not re.search(r'\$[@*]', bare), f'{file.name}: {line}'


@pytest.mark.parametrize(
    ('script', 'arguments'),
    [('dist_train.sh', ['{}', '2', '{}']), ('dist_test.sh', ['{}', '{}', '2', '{}'])],
)
def test_arguments_arrive_as_they_were_typed(tmp_path, script, arguments):
    python = tmp_path / 'bin/python'
    python.parent.mkdir()
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    nasty = 'a b; touch was_run $(touch was_run) `touch was_run` * "quoted"'
    done = subprocess.run(
        ['bash', REPOSITORY / 'tools' / script, *(a.format(nasty) for a in arguments)],
        env={**os.environ, 'PATH': f'{python.parent}:{os.environ["PATH"]}'},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines().count(nasty) == arguments.count('{}')
    assert not (tmp_path / 'was_run').exists()
