"""Reproducing rows: commands, resuming after a stop, history and report."""

import json
import re
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from helpers.repository import REPOSITORY, run_tool
from matplotlib.figure import Figure

from lightvit_mm.carried import TOOLS
from lightvit_mm.engine.history import read_history
from lightvit_mm.errors import UserError
from lightvit_mm.files import whole_file
from lightvit_mm.reproduction import calling, run
from lightvit_mm.reproduction.published import read_published
from lightvit_mm.reproduction.record import RELEASED, TRAINED, Record, Run, read_record
from lightvit_mm.reproduction.report import compare, write_report
from lightvit_mm.reproduction.run import reproduce, reproduce_row

KNOWN = read_published(REPOSITORY / 'configs' / 'published.yml')
ROWS = {row.config: row for row in KNOWN}
DETECTOR = ROWS['mask_rcnn_repvit_m1_1_coco']
SEGMENTOR = ROWS['semantic_fpn_repvit_m1_1_ade20k']
THIRD_PARTY = ROWS['retinanet_edgevit_s_coco']
DATA = {'coco': '/data/coco', 'ade20k': '/data/ade', 'voc12aug': '/data/voc'}


def log(work_dir, stamp, *entries, tail=''):
    file = work_dir / stamp / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text(''.join(json.dumps(entry) + '\n' for entry in entries) + tail)
    (work_dir / f'{work_dir.name}.py').write_text('train_dataloader = dict(batch_size=2)\n')


def train_entry(step, loss, **more):
    return {'lr': 1e-4, 'loss': loss, 'step': step, 'iter': step, **more}


def first_epoch(work_dir):
    """Killed in the middle of a line, in the second epoch."""
    log(
        work_dir,
        '20260101_000000',
        train_entry(50, 3.0, epoch=1),
        train_entry(100, 2.0, epoch=1),
        {'coco/bbox_mAP': 0.2, 'coco/segm_mAP': 0.1, 'step': 1},
        train_entry(150, 9.0, epoch=2),
        tail='{"lr": 0.0001, "lo',
    )
    keep_checkpoint(work_dir, 'epoch_1.pth')


def second_epoch(work_dir, evaluated=True):
    """Resumed from the end of the first epoch."""
    log(
        work_dir,
        '20260102_000000',
        train_entry(150, 1.5, epoch=2),
        train_entry(200, 1.0, epoch=2),
        *([{'coco/bbox_mAP': 0.396, 'coco/segm_mAP': 0.36, 'step': 2}] if evaluated else []),
    )
    keep_checkpoint(work_dir, 'epoch_2.pth')


def keep_checkpoint(work_dir, name):
    (work_dir / name).touch()
    (work_dir / 'last_checkpoint').write_text(str(work_dir / name))


@pytest.fixture
def detector(tmp_path):
    return tmp_path / DETECTOR.config


class Calls(list):
    """The command lines that would have run; ``effects`` happen instead, one per call."""

    def __init__(self):
        self.effects = []

    def __call__(self, command):
        self.append(' '.join(command))
        status = self.effects.pop(0)() if self.effects else 0
        return nullcontext(SimpleNamespace(wait=lambda: status or 0))


@pytest.fixture
def calls(monkeypatch):
    made = Calls()
    monkeypatch.setattr(calling.subprocess, 'Popen', made)
    return made


def test_the_history_of_a_resumed_detector(detector):
    first_epoch(detector)
    assert read_history(detector).final() == {}
    second_epoch(detector)
    history = read_history(detector)
    assert history.loss == {50: 3.0, 100: 2.0, 150: 1.5, 200: 1.0}
    assert history.metrics['bbox_mAP'] == pytest.approx({100: 20.0, 200: 39.6})
    assert history.final() == pytest.approx({'bbox_mAP': 39.6, 'segm_mAP': 36.0})
    assert history.iterations == 200


def test_the_history_of_a_segmentor(tmp_path):
    log(tmp_path, '1', train_entry(50, 2.0), {'mIoU': 31.5, 'aAcc': 70.0, 'step': 4000})
    history = read_history(tmp_path)
    assert history.metrics['mIoU'] == {4000: 31.5}
    assert history.iterations == 4000
    assert read_history(tmp_path / 'nothing').loss == {}


@pytest.mark.parametrize(
    ('row', 'ours', 'verdicts'),
    [
        (DETECTOR, {'bbox_mAP': 40.1, 'segm_mAP': 36.8}, ['inside 0.3', 'OUTSIDE 0.3']),
        (DETECTOR, {'bbox_mAP': 39.5}, ['inside 0.3', 'no result']),
        (SEGMENTOR, {'mIoU': 40.1}, ['inside 0.5']),
        (SEGMENTOR, {'mIoU': 41.2}, ['OUTSIDE 0.5']),
    ],
)
def test_comparison_with_what_was_published(row, ours, verdicts):
    assert [c.verdict for c in compare(row, TRAINED, Record(metrics=ours))] == verdicts


@pytest.mark.parametrize(
    ('row', 'options', 'changed'),
    [
        (DETECTOR, [], False),
        (DETECTOR, ['train_dataloader.batch_size=4'], True),
        (DETECTOR, ['model.backbone.init_cfg.checkpoint=mine.pth'], True),
        (THIRD_PARTY, ['model.backbone.init_cfg.checkpoint=mine.pth'], False),
        (THIRD_PARTY, ['model.backbone.init_cfg=None'], True),
    ],
)
def test_weights_in_place_of_third_party_ones_are_no_change(row, options, changed):
    record = Record([Run('now', 8, options, [])], {'bbox_mAP': 40.0})
    assert compare(row, TRAINED, record)[0].changed is changed


def test_a_row_is_trained_resumed_and_then_left_alone(tmp_path, detector, calls, capsys):
    def killed():
        first_epoch(detector)
        return -9

    calls.effects = [killed, lambda: second_epoch(detector)]
    with pytest.raises(UserError, match=r'exit status -9 of tools/train\.py'):
        reproduce_row(DETECTOR, '/data/coco', tmp_path, gpus=2, cfg_options=['a.b=1'])
    assert read_record(detector).metrics == {}
    metrics = {'bbox_mAP': 39.6, 'segm_mAP': 36.0}
    record = reproduce_row(DETECTOR, '/data/coco', tmp_path, gpus=2, cfg_options=['a.b=1'])
    assert record.metrics == pytest.approx(metrics)
    assert [run.resumed for run in record.runs] == [None, 'epoch_1.pth']
    assert 'not run again' not in capsys.readouterr().out
    assert reproduce_row(DETECTOR, '/data/coco', tmp_path, 2, cfg_options=['a.b=1']) == record
    said = capsys.readouterr().out
    assert 'not run again' in said
    assert 'other --cfg-options' not in said
    assert reproduce_row(DETECTOR, '/data/coco', tmp_path) == record
    assert 'other --cfg-options' in capsys.readouterr().out

    first, second = calls
    assert f'--standalone --nproc_per_node=2 {TOOLS}/train.py' in first
    assert f'configs/{DETECTOR.config}.py --auto-scale-lr --data-root /data/coco' in first
    assert first.endswith('--launcher pytorch --cfg-options a.b=1')
    assert second == first.replace('--auto-scale-lr', '--auto-scale-lr --resume')


def test_stopped_after_the_last_checkpoint_and_before_its_evaluation(tmp_path, detector, calls):
    first_epoch(detector)
    second_epoch(detector, evaluated=False)

    def evaluate():
        folder = detector / '20260103_000000'
        folder.mkdir()
        (folder / f'{folder.name}.json').write_text(
            '{"coco/bbox_mAP": 0.41, "coco/segm_mAP": 0.37}'
        )

    calls.effects = [lambda: 0, evaluate]
    record = reproduce_row(DETECTOR, '/coco', tmp_path)
    assert record.metrics == pytest.approx({'bbox_mAP': 41.0, 'segm_mAP': 37.0})
    assert 'tools/train.py' in calls[0]
    assert f'tools/test.py configs/{DETECTOR.config}.py {detector}/epoch_2.pth' in calls[1]
    assert '--resume' not in calls[1]


def test_a_row_without_its_metric_is_not_finished(tmp_path, detector, calls):
    log(detector, '1', train_entry(50, 3.0), {'coco/bbox_mAP': 0.2, 'step': 50})
    with pytest.raises(UserError, match='segm_mAP not measured'):
        reproduce_row(DETECTOR, '/coco', tmp_path)
    assert read_record(detector).metrics == {}


def test_released_models_are_evaluated(tmp_path, calls):
    work_dir = tmp_path / f'{SEGMENTOR.config}_released' / '20260101_000000'
    work_dir.mkdir(parents=True)
    (work_dir / '20260101_000000.json').write_text('{"mIoU": 40.58, "time": 1.0}')
    record = reproduce_row(SEGMENTOR, '/ade', tmp_path, evaluate=True)
    assert record.metrics == {'mIoU': 40.58}
    assert f'tools/test.py configs/{SEGMENTOR.config}.py {SEGMENTOR.released}' in calls[0]
    with pytest.raises(UserError, match='released no checkpoint'):
        reproduce_row(THIRD_PARTY, '/coco', tmp_path, evaluate=True)


def test_a_series_goes_on_after_a_failed_row(tmp_path, detector, calls, capsys):
    segmentor = tmp_path / SEGMENTOR.config
    entries = (train_entry(50, 2.0), {'mIoU': 40.2, 'step': 4000})
    calls.effects = [lambda: 3, lambda: log(segmentor, '1', *entries)]
    failures = reproduce([DETECTOR, SEGMENTOR], KNOWN, DATA, tmp_path)
    assert len(calls) == 2
    assert failures == [
        f'{DETECTOR.config}: exit status 3 of tools/train.py; see its output and its log'
    ]
    said = capsys.readouterr().out
    assert 'ours 40.20, difference -0.40, inside 0.5' in said
    assert f'report: {tmp_path / "report.md"}' in said
    report = (tmp_path / 'report.md').read_text()
    assert 'No result: exit status 3 of tools/train.py' in report
    assert '- Initial weights: repvit_m1_1.distill_300e, top-1 80.7.' in report
    # Another series adds to the report.
    calls.effects = [lambda: 4]
    reproduce([THIRD_PARTY], KNOWN, DATA, tmp_path)
    assert 'tools/train.py' in calls[2]
    report = (tmp_path / 'report.md').read_text()
    assert '| 40.20 | -0.40 | inside 0.5 |' in report
    third_party = "third-party weights; the paper's top-1 81.0"
    assert f'- Initial weights: edgevit_s.easycv, top-1 80.3 ({third_party}).' in report


def test_rows_without_data_or_released_model_are_left_out(tmp_path, calls):
    reproduce(KNOWN, KNOWN, {'voc12aug': '/voc'}, tmp_path)
    assert [re.search('mobilevit_([xs]+)_voc12aug', call)[1] for call in calls] == [
        'xxs',
        'xs',
        's',
    ]
    for rows, evaluate in (([THIRD_PARTY], True), ([], False)):
        with pytest.raises(UserError, match='no row is left'):
            reproduce(rows, KNOWN, DATA, tmp_path, evaluate=evaluate)


def test_a_work_dir_with_another_report(tmp_path, calls):
    report = tmp_path / 'report.md'
    report.write_text('# Something else')
    for folder, said in (
        (tmp_path, 'nothing shows that this tool wrote it'),
        (report, 'cannot be written'),
    ):
        with pytest.raises(UserError, match=said):
            reproduce([DETECTOR], KNOWN, DATA, folder)
    assert report.read_text() == '# Something else'
    assert not calls


def test_a_row_ends_with_the_series(monkeypatch, tmp_path):
    """Not as an orphan that trains on."""
    code = 'import time; print(1, flush=True); time.sleep(60)'
    ended = []

    class Process(calling.subprocess.Popen):
        def wait(self, timeout=None):
            if self.poll() is None and not ended:
                ended.append(self)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(calling.subprocess, 'Popen', Process)
    with pytest.raises(KeyboardInterrupt):
        calling.call([sys.executable, '-c', code])
    assert ended[0].returncode == -15


@pytest.fixture
def reported(tmp_path, detector, calls):
    """A detector as published, a segmentor with an option, and released weights that fail."""
    first_epoch(detector)
    calls.effects = [lambda: second_epoch(detector)]
    reproduce_row(DETECTOR, '/coco', tmp_path, gpus=8)
    entries = (train_entry(50, 2.0), {'mIoU': 40.2, 'step': 4000})
    calls.effects = [lambda: log(tmp_path / SEGMENTOR.config, '1', *entries)]
    reproduce_row(SEGMENTOR, '/ade', tmp_path, cfg_options=['a.b=1'])
    calls.effects = [lambda: 1]
    with pytest.raises(UserError):
        reproduce_row(SEGMENTOR, '/ade', tmp_path, evaluate=True)
    return tmp_path


def test_the_report(reported):
    write_report(reported, KNOWN)
    text = (reported / 'report.md').read_text()
    assert '1 of 3 figures are inside the tolerance (0.3 points of AP, 0.5 of mIoU), 1 ' in text
    assert '1 outside, 1 without a result.' in text
    assert '1 with changes to the config, not counted above' in text
    name = DETECTOR.config
    assert f'| {name} | trained here | bbox_mAP | 39.8 | 39.60 | -0.20 | inside 0.3 |' in text
    assert f'| {name} | trained here | segm_mAP | 37.2 | 36.00 | -1.20 | OUTSIDE 0.3 |' in text
    name = SEGMENTOR.config
    assert f'| {name} \\* | trained here | mIoU | 40.6 | 40.20 | -0.40 | inside 0.5 |' in text
    assert f'| {name} | released | mIoU | 40.6 |  |  | no result |' in text
    assert 'Trained for 200 iterations of 16 images; published: 87,960 of 16.' in text
    assert 'Trained for 4,000 iterations of 2 images; published: 40,000 of 32.' in text
    assert 'resumed from epoch_1.pth on 8 processes' in text
    assert 'Not finished' in text
    assert ' \\\n  --cfg-options \\\n  a.b=1\n```' in text
    assert '(THU-MIG/RepViT at 298f420, detection/README.md)' in text
    assert 'Recipe: THU-MIG/RepViT at 298f420, detection/configs.' in text
    for row in (DETECTOR, SEGMENTOR):
        assert f']({row.config}.png)' in text
        assert (reported / f'{row.config}.png').read_bytes().startswith(b'\x89PNG')
    content = json.loads((reported / 'report.json').read_text())
    figure = content[0]['figures']['bbox_mAP']
    assert figure['published'] == 39.8
    assert figure['ours'] == pytest.approx(39.6)
    assert figure['difference'] == pytest.approx(-0.2)
    assert figure['verdict'] == 'inside 0.3'
    assert [(row['config'], row['weights']) for row in content] == [
        (DETECTOR.config, TRAINED),
        (SEGMENTOR.config, TRAINED),
        (SEGMENTOR.config, RELEASED),
    ]


def test_the_curves_are_drawn_over_images_seen(reported, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure,
        'savefig',
        lambda figure, *args, **how: drawn.append(figure) or save(figure, *args, **how),
    )
    write_report(reported, KNOWN)
    losses, metrics = drawn[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in losses.lines}
    assert lines['ours'] == [[800, 3.0], [1600, 2.0], [2400, 1.5], [3200, 1.0]]
    assert lines['published'][0] == [800, 4.7678]
    lines = {line.get_label(): line.get_xydata().tolist() for line in metrics.lines}
    assert lines['segm_mAP, ours'] == [[1600, 10.0], [3200, 36.0]]
    assert lines['bbox_mAP, published'][0] == [7330 * 16, 22.31]
    assert lines['bbox_mAP, published result'] == [[87960 * 16, 39.8]]
    # 3,200 of 1,407,360 images would be one point on a linear axis.
    assert metrics.get_xscale() == 'log'


def test_an_interrupted_write_leaves_the_old_record(tmp_path, monkeypatch):
    run.write_record(tmp_path, Record([Run('now', 1, [], ['train'])], {'mIoU': 1.0}))
    monkeypatch.setattr('os.replace', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.write_record(tmp_path, Record())
    assert read_record(tmp_path).metrics == {'mIoU': 1.0}


def test_jobs_may_write_the_report_at_the_same_time(tmp_path):
    report = tmp_path / 'report.md'
    with whole_file(report) as part:
        part.write_text('of another job')
        write_report(tmp_path, KNOWN)
        assert 'No figure' in report.read_text()
    assert report.read_text() == 'of another job'
    assert sorted(tmp_path.iterdir()) == [tmp_path / 'report.json', report]


def test_the_tool_wants_to_know_where_the_data_are():
    result = run_tool('tools/reproduce.py')
    assert result.returncode == 2
    assert '--coco DIR' in result.stderr
