"""Reproducing rows: the commands, going on after a stop, what is read back and reported."""

import json
import subprocess
from types import SimpleNamespace

import pytest
from conftest import REPOSITORY, run_tool

from lightvit_mm.errors import UserError
from lightvit_mm.reproduction import run
from lightvit_mm.reproduction.history import read_history
from lightvit_mm.reproduction.published import read_published
from lightvit_mm.reproduction.report import compare, write_report
from lightvit_mm.reproduction.run import reproduce_row

ROWS = {row.config: row for row in read_published(REPOSITORY / 'configs' / 'published.yml')}
DETECTOR = ROWS['mask_rcnn_repvit_m1_1_coco']
SEGMENTOR = ROWS['semantic_fpn_repvit_m1_1_ade20k']


def log(work_dir, stamp, *entries, tail=''):
    file = work_dir / stamp / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text(''.join(json.dumps(entry) + '\n' for entry in entries) + tail)


def train_entry(step, loss, **more):
    return {'lr': 1e-4, 'loss': loss, 'step': step, 'iter': step, **more}


@pytest.fixture
def detector_log(tmp_path):
    work_dir = tmp_path / DETECTOR.config
    # Killed in the middle of a line, then resumed from the end of the first epoch.
    log(
        work_dir,
        '20260101_000000',
        train_entry(50, 3.0, epoch=1),
        train_entry(100, 2.0, epoch=1),
        {'coco/bbox_mAP': 0.2, 'coco/segm_mAP': 0.1, 'step': 1},
        train_entry(150, 9.0, epoch=2),
        tail='{"lr": 0.0001, "lo',
    )
    log(
        work_dir,
        '20260102_000000',
        train_entry(150, 1.5, epoch=2),
        train_entry(200, 1.0, epoch=2),
        {'coco/bbox_mAP': 0.396, 'coco/segm_mAP': 0.36, 'step': 2},
    )
    return work_dir


def test_the_history_of_a_resumed_detector(detector_log):
    history = read_history(detector_log)
    assert history.loss == {50: 3.0, 100: 2.0, 150: 1.5, 200: 1.0}
    assert history.metrics['bbox_mAP'] == pytest.approx({100: 20.0, 200: 39.6})
    assert history.final('segm_mAP') == pytest.approx(36.0)
    assert history.final('mIoU') is None


def test_the_history_of_a_segmentor(tmp_path):
    log(tmp_path, '1', train_entry(50, 2.0), {'mIoU': 31.5, 'aAcc': 70.0, 'step': 4000})
    history = read_history(tmp_path)
    assert history.metrics['mIoU'] == {4000: 31.5}
    assert read_history(tmp_path / 'nothing').loss == {}


@pytest.mark.parametrize(
    ('row', 'ours', 'verdicts'),
    [
        (DETECTOR, {'bbox_mAP': 40.1, 'segm_mAP': 36.8}, ['inside 0.3', 'OUTSIDE 0.3']),
        (DETECTOR, {'bbox_mAP': 39.5}, ['inside 0.3', 'not there']),
        (SEGMENTOR, {'mIoU': 40.1}, ['inside 0.5']),
        (SEGMENTOR, {'mIoU': 41.2}, ['OUTSIDE 0.5']),
    ],
)
def test_comparison_with_what_was_published(row, ours, verdicts):
    assert [c.verdict for c in compare(row, ours)] == verdicts


def test_the_report(tmp_path, detector_log):
    ours = {'bbox_mAP': 39.6, 'segm_mAP': 36.0}
    write_report(tmp_path, [(DETECTOR, ours), (SEGMENTOR, {})], 'the command')
    text = (tmp_path / 'report.md').read_text()
    assert '`the command`' in text
    assert f'| {DETECTOR.config} | bbox_mAP | 39.8 | 39.60 | -0.20 | inside 0.3 |' in text
    assert f'| {SEGMENTOR.config} | mIoU | 40.6 |  |  | not there |' in text
    assert f']({DETECTOR.config}.png)' in text
    picture = (tmp_path / f'{DETECTOR.config}.png').read_bytes()
    assert picture.startswith(b'\x89PNG')
    content = json.loads((tmp_path / 'report.json').read_text())
    assert content['rows'][0] == {
        'config': DETECTOR.config,
        'metric': 'bbox_mAP',
        'published': 39.8,
        'ours': 39.6,
        'verdict': 'inside 0.3',
    }


@pytest.fixture
def calls(monkeypatch):
    made = []

    def call(command, check):
        made.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(run.subprocess, 'run', call)
    return made


def test_a_row_is_trained_resumed_and_then_left_alone(tmp_path, detector_log, calls):
    reproduce_row(DETECTOR, '/data/coco', tmp_path, gpus=2, cfg_options=['a.b=1'])
    (detector_log / run.DONE).unlink()
    (detector_log / 'epoch_1.pth').touch()
    (detector_log / 'last_checkpoint').write_text(str(detector_log / 'epoch_1.pth'))
    metrics = reproduce_row(DETECTOR, '/data/coco', tmp_path, gpus=8)
    assert metrics == pytest.approx({'bbox_mAP': 39.6, 'segm_mAP': 36.0})
    assert reproduce_row(DETECTOR, '/data/coco', tmp_path) == metrics
    first, second = (' '.join(call) for call in calls)
    assert '--nproc_per_node=2 tools/train.py configs/mask_rcnn_repvit_m1_1_coco.py' in first
    assert '--auto-scale-lr --data-root /data/coco' in first
    assert first.endswith('--launcher pytorch --cfg-options a.b=1')
    assert '--resume' not in first
    assert '--resume --data-root' in second
    assert '--auto-scale-lr' not in second


def test_released_models_are_evaluated(tmp_path, calls):
    work_dir = tmp_path / f'{SEGMENTOR.config}_released' / '20260101_000000'
    work_dir.mkdir(parents=True)
    (work_dir / '20260101_000000.json').write_text('{"mIoU": 40.58, "time": 1.0}')
    assert reproduce_row(SEGMENTOR, '/ade', tmp_path, evaluate=True) == {'mIoU': 40.58}
    command = ' '.join(calls[0])
    assert f'tools/test.py configs/{SEGMENTOR.config}.py {SEGMENTOR.released}' in command
    with pytest.raises(UserError, match='released no checkpoint'):
        reproduce_row(ROWS['retinanet_edgevit_s_coco'], '/coco', tmp_path, evaluate=True)


def test_a_failed_row_is_an_error_and_not_done(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, 'run', lambda *_, **__: SimpleNamespace(returncode=3))
    with pytest.raises(UserError, match=r'exit status 3 of .*tools/train\.py'):
        reproduce_row(DETECTOR, '/coco', tmp_path)
    assert not (tmp_path / DETECTOR.config / run.DONE).exists()


def test_the_tool_wants_to_know_where_the_data_are():
    result = run_tool('tools/reproduce.py')
    assert result.returncode == 2
    assert '--coco DIR' in result.stderr
