"""The commands of docs/reproduce.md."""

import re
import runpy
import shlex
import sys

import pytest
from helpers.repository import REPOSITORY

from lightvit_mm.carried import CONFIGS
from lightvit_mm.reproduction import check, imagenet, run

PAGE = (REPOSITORY / 'docs' / 'reproduce.md').read_text().replace('\\\n', '')
COMMANDS = re.findall(
    r"^.*?python (tools/reproduce\.py [^'\n]*(?:'[^'\n]*\*'[^'\n]*)*)", PAGE, re.M
)


@pytest.mark.parametrize('command', COMMANDS)
def test_commands(command, monkeypatch):
    called = []
    monkeypatch.setattr(run, 'reproduce', lambda *arguments: called.append(arguments) or [])
    monkeypatch.setattr(
        imagenet, 'reproduce_imagenet', lambda *arguments: called.append(arguments) or []
    )
    monkeypatch.setattr(
        check,
        'check_row',
        lambda row: called.append(row) or check.Checked(row, differences=dict(row.explained)),
    )
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, 'argv', shlex.split(command))
    runpy.run_path('tools/reproduce.py', run_name='__main__')
    assert called
    if 'reproduce.py --imagenet' in command:
        root, _, patterns, gpus, evaluates, _ = called[0]
        assert root == 'data/imagenet'
        assert gpus == (8 if '--gpus 8' in command else 1)
        assert evaluates == ('--evaluate' in command)
        assert all(list(CONFIGS.glob(f'{pattern}_in1k.py')) for pattern in patterns)
    elif '--check' not in command:
        rows, known, roots, _, gpus, *_ = called[0]
        assert [row for row in rows if row.dataset in roots]
        assert len(rows) <= len(known)
        assert gpus == (8 if '--gpus 8' in command else 4 if '--gpus 4' in command else 1)


def test_there_are_commands():
    assert len(COMMANDS) == 10
