"""OpenVINO beside the rest of a process."""

import signal

import numpy as np
import pytest
from helpers.repository import run_tool

from lightvit_mm.runtimes.session import INPUT

openvino = pytest.importorskip('openvino', reason='not installed')

SCRIPT = """
import signal, subprocess, sys
from lightvit_mm.runtimes.session import open_file

first, second = open_file(sys.argv[1]), open_file(sys.argv[1])
del first
del second
signal.signal(signal.SIGCHLD, lambda *_: None)  # as torch's data loaders
subprocess.run(['sh', '-c', 'sleep 0.1'], check=True)
"""


def test_a_signal_after_two_files(tmp_path):
    image = openvino.opset13.parameter([1, 3, 8, 8], np.float32, name=INPUT)
    image.output(0).set_names({INPUT})
    model = openvino.Model([openvino.opset13.relu(image)], [image])
    openvino.save_model(model, tmp_path / 'model.xml')
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT)
    done = run_tool(script, tmp_path / 'model.xml')
    assert done.returncode == 0, (signal.Signals(-done.returncode), done.stderr)
