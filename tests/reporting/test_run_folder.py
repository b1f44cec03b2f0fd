"""Reading the folder of a run at every stage."""

from datetime import datetime, timedelta

import pytest

from lightvit_mm.errors import MissingFileError, UserError
from lightvit_mm.reporting.run_folder import read_run

FIRST = '2026/01/31 12:00:00 - mmengine - INFO - '
TRAINING = (
    '2026/01/31 12:01:00 - mmengine - INFO - Epoch(train)  [2][ 50/600]  lr: 1.0e-03  '
    'eta: 1 day, 2:03:04  time: 0.1  loss: 1.0\n'
)
EVALUATION = '2026/01/31 12:01:00 - mmengine - INFO - Epoch(test) [ 10/10]  coco/bbox_mAP: 0.1\n'
ENVIRONMENT = f"""{FIRST}
------------------------------------------------------------
System environment:
    sys.platform: linux
    PyTorch compiling details: PyTorch built with:
  - GCC 13.3
    MMEngine: 0.10.7

Runtime environment:
    seed: 0
------------------------------------------------------------
"""


def start(work_dir, name, log):
    data = work_dir / name / 'vis_data'
    data.mkdir(parents=True)
    (data / 'config.py').write_text('')
    (work_dir / name / f'{name}.log').write_text(log)


def test_run_in_the_middle(tmp_path):
    start(tmp_path, '20260131_120000', ENVIRONMENT + TRAINING)
    run = read_run(tmp_path)
    assert run.position == 'epoch 2, iteration 50 of 600'
    assert run.remaining == '1 day, 2:03:04'
    assert not run.is_finished
    assert run.duration == timedelta(minutes=1)
    assert run.environment == {'sys.platform': 'linux', 'MMEngine': '0.10.7', 'seed': '0'}


def test_run_that_has_just_started(tmp_path):
    start(tmp_path, '20260131_120000', '')
    run = read_run(tmp_path)
    assert run.position == 'no iteration logged yet'
    assert run.remaining is None
    assert run.environment == {}
    assert run.starts[0].began == datetime(2026, 1, 31, 12)


def test_resumed_and_finished_run(tmp_path):
    start(tmp_path, '20260131_120000', FIRST + '\n' + TRAINING)
    start(tmp_path, '20260131_130000', FIRST + '\n' + TRAINING + FIRST + 'trained: checkpoint x\n')
    run = read_run(tmp_path)
    assert len(run.starts) == 2
    assert run.is_finished


def test_resumed_run_that_has_logged_nothing_yet(tmp_path):
    start(tmp_path, '20260131_120000', TRAINING)
    start(tmp_path, '20260131_130000', FIRST)
    assert read_run(tmp_path).position == 'epoch 2, iteration 50 of 600'


def test_evaluations_in_the_same_folder_are_no_training(tmp_path):
    start(tmp_path, '20260131_120000', TRAINING)
    start(tmp_path, '20260131_130000', EVALUATION)
    assert len(read_run(tmp_path).starts) == 1


def test_no_folder(tmp_path):
    with pytest.raises(MissingFileError, match=r'nowhere is no folder: give the work dir'):
        read_run(tmp_path / 'nowhere')


def test_no_run_but_runs_below(tmp_path):
    start(tmp_path / 'mine', '20260131_120000', TRAINING)
    with pytest.raises(UserError, match=rf'no training was started.*runs in {tmp_path}/mine'):
        read_run(tmp_path)


def test_only_an_evaluation(tmp_path):
    start(tmp_path, '20260131_120000', EVALUATION)
    with pytest.raises(UserError, match='no training was started'):
        read_run(tmp_path)
