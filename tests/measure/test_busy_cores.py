"""How busy other programs keep the processor."""

import os
import subprocess
import sys

import pytest

from lightvit_mm.measure.load import busy_cores, usable_cores


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='only Linux pins processes')
def test_a_program_that_keeps_a_core_busy(monkeypatch):
    core = min(usable_cores())
    code = f'import os\nos.sched_setaffinity(0, {{{core}}})\nprint(flush=True)\nwhile True: pass'
    other = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {core})
        assert busy_cores() > 0.8
    finally:
        other.kill()
        other.communicate()
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set())
    assert busy_cores() == 0
