"""Reports about the data of a config, before a run and from tools/check_data.py."""

import copy
import json
import time

import pytest
from helpers import small_data
from helpers.annotations import (
    first,
    judged,
    mmdet_reads,
    run_check_data,
    set_first,
    write_and_check,
)
from helpers.repository import REPOSITORY

from lightvit_mm.data.checking import (
    check_before_run,
    check_everything,
    check_reports_file,
    summary,
    write_reports,
)
from lightvit_mm.data.findings import ERROR, NOTE, WARNING, DataError
from lightvit_mm.data.images import LookedAt
from lightvit_mm.errors import UserError


def test_nothing_wrong(root, content, capsys):
    config, reports = write_and_check(root, content)
    assert not [finding for report in reports for finding in report.findings]
    assert [report.counts for report in reports] == [{'images': 3, 'annotations': 12}] * 2
    assert 'it can be trained on' in summary(reports)
    check_before_run(config, ('train', 'val', 'test'))
    assert 'warning' not in capsys.readouterr().out
    assert mmdet_reads(config) == 12


def test_warnings_are_printed_before_a_run(root, content, capsys):
    set_first(area=0)(content)
    config, _ = write_and_check(root, content)
    capsys.readouterr()
    check_before_run(config, ('train',))
    said = capsys.readouterr().out
    assert 'area of zero or less, left out (1)' in said
    assert 'annotation 1' in said
    assert 'tools/check_data.py' in said


def test_heads_for_another_number_of_classes(root, content):
    config, reports = write_and_check(root, content, **{'model.bbox_head.num_classes': 80})
    assert judged(reports, ERROR, 'head for another number of classes')
    with pytest.raises(DataError, match=r'model\.bbox_head\.num_classes is 80.* 4 classes'):
        check_before_run(config, ('train',))


def test_another_file_for_the_evaluation(root, content):
    other = {'val_evaluator.ann_file': str(root / 'annotations/instances_train.json')}
    config, reports = write_and_check(root, content, **other)
    assert judged(reports, WARNING, 'evaluation against another annotation file')
    assert not judged(reports, ERROR, '')
    del first(content)['iscrowd']
    (root / 'annotations/instances_train.json').write_text(json.dumps(content))
    with pytest.raises(DataError, match='without iscrowd, which the evaluation needs'):
        check_before_run(config, ('val',))


def test_wrapped_and_unknown_data_sets(root, content):
    small_data.write_coco(root, content)
    config = small_data.detector_config(root)
    inner = config.train_dataloader.dataset
    other = {**copy.deepcopy(inner), 'type': 'LVISV1Dataset', 'metainfo': None}
    config.train_dataloader.dataset = {
        'type': 'ConcatDataset',
        'datasets': [inner, {'type': 'RepeatDataset', 'times': 2, 'dataset': inner}, other],
    }
    config.model.bbox_head.num_classes = 4
    reports = check_everything(config)
    assert judged(reports, NOTE, 'type of data set that is not checked')
    assert len(reports) == 3, 'what comes twice is looked at once'


def test_all_findings_as_json(root, content, tmp_path):
    set_first(area=0)(content)
    _, reports = write_and_check(root, content)
    write_reports(reports, tmp_path / 'all.json')
    written = json.loads((tmp_path / 'all.json').read_text())
    assert written[0]['part'] == 'train'
    assert written[0]['images'] == 3
    assert written[0]['findings'][0]['item'] == 'annotation 1'


def test_where_findings_are_written(root, content, tmp_path):
    config, reports = write_and_check(root, content)
    for some in ([], reports):
        check_reports_file(config, tmp_path / 'new/all.json')
        write_reports(some, tmp_path / 'new/all.json')
    check_reports_file(config, tmp_path / 'new/all.json')
    annotations = root / 'annotations/instances_val.json'
    (tmp_path / 'other.json').write_text(annotations.read_text())
    for file, said in (
        (annotations, 'is an input'),
        (tmp_path / 'other.json', 'nothing shows that this tool wrote it'),
        (annotations / 'all.json', 'cannot be written'),
        (tmp_path, 'is a folder'),
    ):
        with pytest.raises(UserError, match=said):
            check_reports_file(config, file)


def test_exit_status(root, content, monkeypatch, capsys):
    set_first(area=0)(content)
    small_data.write_coco(root, content)
    config = REPOSITORY / 'configs/retinanet_edgevit_xxs_shapes.py'
    arguments = [config, '--data-root', root]
    assert run_check_data(monkeypatch, *arguments) == 0
    assert '0 errors, 2 warnings, 0 notes' in capsys.readouterr().out
    (root / 'images/val/b.png').unlink()
    monkeypatch.setattr('lightvit_mm.data.checking.check_everything', pytest.fail)
    assert run_check_data(monkeypatch, *arguments, '--out', config) == 2
    assert f'--out {config} exists' in capsys.readouterr().err
    monkeypatch.undo()
    assert run_check_data(monkeypatch, *arguments, '--out', root / 'all.json') == 1
    said = capsys.readouterr().out
    assert f'image 2: {root}/images/val/b.png' in said
    assert '1 errors, 2 warnings, 0 notes: training would stop' in said
    assert said.rstrip().endswith(f'all of them in {root}/all.json')
    (root / 'annotations/instances_val.json').unlink()
    assert run_check_data(monkeypatch, *arguments) == 2
    assert 'instances_val.json' in capsys.readouterr().err


def test_an_interrupted_check_ends_at_once(root, content, monkeypatch):
    content['images'] = [{**content['images'][0], 'id': number} for number in range(1, 301)]
    small_data.write_coco(root, content)
    looked = []

    def look(path, load):
        looked.append(path)
        time.sleep(0.005)
        return LookedAt()

    def interrupted(findings, *_, **__):
        yield next(findings)
        raise KeyboardInterrupt

    monkeypatch.setattr('lightvit_mm.data.checking.look_at_image', look)
    monkeypatch.setattr('rich.progress.track', interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_everything(small_data.detector_config(root))
    assert 0 < len(looked) < 300
