"""Files that are no COCO annotations are refused by name; missing fields can be added."""

import gzip
import json

import pytest
from helpers import small_data
from helpers.annotations import evaluate_truth, first, judged, run_check_data
from helpers.repository import REPOSITORY

from lightvit_mm.data.checking import check_before_run, check_everything
from lightvit_mm.data.findings import ERROR, DataError


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('{"images": [', 'not valid JSON.*line 1 column'),
        ('', 'not valid JSON'),
        ('[]', 'not a COCO annotation file'),
        ('{"images": [], "annotations": []}', 'called categories'),
        ('{"images": [1], "annotations": [], "categories": []}', 'called images'),
        ('\x00\xff', 'not valid JSON'),
        ('\ufeff{}', 'not valid JSON.*BOM.*without a byte-order mark'),
        ('{}'.encode('utf-16'), 'not valid JSON.*expected uncompressed text in UTF-8'),
        (gzip.compress(b'{}'), 'not valid JSON.*expected uncompressed text in UTF-8'),
        ('[' * 200_000, 'not valid JSON.*recursion'),
        (f'[{"4" * 5000}]', 'not valid JSON.*digits'),
    ],
    ids=range(11),
)
def test_files_that_are_no_annotations(root, content, text, said):
    small_data.write_coco(root, content)
    file = root / 'annotations/instances_train.json'
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    config = small_data.detector_config(root)
    with pytest.raises(DataError, match=said) as error:
        check_before_run(config, ('train',))
    assert 'instances_train.json' in str(error.value)
    assert judged(check_everything(config), ERROR, 'annotation file that cannot be read')


def test_a_file_for_a_test_server_has_no_annotations(root, content):
    del content['annotations']
    small_data.write_coco(root, content)
    check_before_run(small_data.detector_config(root), ('test',))


def test_a_folder_in_place_of_the_annotations(root, content):
    small_data.write_coco(root, content)
    (root / 'annotations/instances_train.json').unlink()
    (root / 'annotations/instances_train.json').mkdir()
    with pytest.raises(DataError, match=r'instances_train\.json cannot be read: Is a dir'):
        check_before_run(small_data.detector_config(root), ('train',))


def test_a_copy_with_iscrowd(root, content, monkeypatch, capsys):
    del first(content)['iscrowd']
    content['info'] = {'year': 2026}
    small_data.write_coco(root, content)
    config = REPOSITORY / 'configs/retinanet_edgevit_xxs_shapes.py'
    file = root / 'annotations/instances_val.json'
    copy_ = file.with_suffix('.iscrowd.json')
    arguments = ['--add-iscrowd', file, copy_, '--val-data', copy_, root / 'images/val']
    assert run_check_data(monkeypatch, config, '--data-root', root, *arguments) == 0
    assert f'{copy_}: iscrowd added to 1 annotations' in capsys.readouterr().out
    first(content)['iscrowd'] = 0
    assert json.loads(copy_.read_text()) == content
    changed = small_data.detector_config(root)
    changed.val_dataloader.dataset.ann_file = changed.val_evaluator.ann_file = str(copy_)
    assert evaluate_truth(changed) == 1
    for here, there in ((file, copy_), (root / 'gone.json', root / 'new.json')):
        assert run_check_data(monkeypatch, config, '--add-iscrowd', here, there) == 2
