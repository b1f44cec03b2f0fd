"""Every bad annotation is refused or reported before the first step, as mmdet would treat it."""

import copy
import gzip
import json
import runpy

import numpy as np
import pytest
import torch
from helpers import small_data
from helpers.repository import REPOSITORY
from mmengine.registry import DATASETS, METRICS, init_default_scope

from lightvit_mm.data.checking import check_before_run, check_everything, summary
from lightvit_mm.data.coco_file import CocoUse, _decompress, check_coco
from lightvit_mm.data.findings import ERROR, NOTE, WARNING, DataError
from lightvit_mm.errors import UserError

NAMES = ['a.png', 'b.png', 'c.png']


@pytest.fixture
def content():
    return small_data.coco(dict.fromkeys(NAMES, small_data.SIZE))


@pytest.fixture
def root(tmp_path):
    small_data.write_images(tmp_path, NAMES)
    return tmp_path


def write_and_check(root, content, masks=False, **options):
    small_data.write_coco(root, content)
    config = small_data.detector_config(root, masks, **options)
    return config, check_everything(config)


def mmdet_reads(config, masks=False) -> int:
    """Instances that reach the model as targets, by mmdet's own data set and pipeline."""
    init_default_scope('mmdet')
    dataset = DATASETS.build(config.train_dataloader.dataset)
    targets = [dataset[i]['data_samples'].gt_instances for i in range(len(dataset))]
    assert all(np.isfinite(target.bboxes.numpy()).all() for target in targets)
    if masks:
        assert all(set(np.unique(target.masks.masks)) <= {0, 1} for target in targets)
    return sum(len(target) for target in targets)


def first(content) -> dict:
    return content['annotations'][0]


def set_first(**values):
    return lambda content: first(content).update(values)


def drop_all(content):
    content['annotations'] = []


def crowd_only(content):
    for annotation in content['annotations'][:4]:
        annotation['iscrowd'] = 1


RLE = {'size': [48, 64], 'counts': [48 * 32, 48 * 32]}
# Damage, severity, words of its kind, and how many of the 12 instances mmdet trains on: None
# if it stops, ...
CASES = {
    'unknown category': (set_first(category_id=9), WARNING, 'unknown category', 11),
    'unknown image': (set_first(image_id=9), WARNING, 'unknown image', 11),
    'outside': (set_first(bbox=[100, 100, 9, 9]), WARNING, 'outside the image', 11),
    'sticks out': (set_first(bbox=[40, 20, 60, 20]), WARNING, 'sticks out', 12),
    'no size': (set_first(bbox=[5, 5, 0, 0]), WARNING, 'of no size', 11),
    'under a pixel': (set_first(bbox=[5, 5, 0.5, 9]), WARNING, 'under a pixel', 11),
    'zero area': (set_first(area=0), WARNING, 'area of zero', 11),
    'negative size': (set_first(bbox=[9, 9, -5, 5]), WARNING, 'negative size', 11),
    'ignored': (set_first(ignore=1), NOTE, 'marked "ignore"', 11),
    'crowd only': (crowd_only, NOTE, 'crowds only', 8),
    'id 0': (set_first(id=0), WARNING, 'id 0', 12),
    'image without': (
        lambda content: content.update(annotations=content['annotations'][4:]),
        NOTE, 'without annotations, left out', 8,
    ),
    'class without': (
        lambda content: content.update(
            annotations=[a for a in content['annotations'] if a['category_id'] != 4]
        ),
        WARNING, 'class without any annotation', 9,
    ),
    'category more': (
        lambda content: content['categories'].append({'id': 9, 'name': 'moon'}),
        NOTE, 'not a class of the config', 12,
    ),
    'last category missing': (
        lambda content: content['categories'].pop(), WARNING, 'that is not a category', 9,
    ),
    'no annotation at all': (drop_all, ERROR, 'no image is left', None),
    'other classes': (
        lambda content: [c.update(name=f'my {c["name"]}') for c in content['categories']],
        ERROR, 'no class of the config is a category', None,
    ),
    'box of three': (set_first(bbox=[1, 2, 3]), ERROR, 'not four numbers', None),
    'box of text': (set_first(bbox=['1', '2', '3', '4']), ERROR, 'is not a number', None),
    'no area': (lambda content: first(content).pop('area'), ERROR, 'lacks a field', None),
    'id twice': (set_first(id=2), ERROR, 'annotation id used twice', None),
    'no file name': (
        lambda content: content['images'][0].pop('file_name'), ERROR, 'lacks a field', None,
    ),
    'no height': (
        lambda content: content['images'][0].pop('height'), ERROR, 'lacks a field', None,
    ),
    'missing file': (
        lambda content: content['images'][0].update(file_name='x.png'), ERROR, 'file missing', None,
    ),
}  # fmt: skip
# ... or 'silent' if it continues with wrong data.
SILENT = {
    'NaN': (set_first(bbox=[float('nan'), 0, 9, 9]), ERROR, 'is not a number'),
    'infinite': (set_first(bbox=[0, 0, float('inf'), 9]), ERROR, 'is not a number'),
    'image id twice': (
        lambda content: content['images'][1].update(id=1), ERROR, 'image id used twice',
    ),
    'image listed twice': (
        lambda content: content['images'][1].update(file_name='a.png'),
        WARNING, 'listed more than once',
    ),
    'order of classes': (
        lambda content: content['categories'].reverse(), ERROR, 'labels would mean other classes',
    ),
    'category id twice': (
        lambda content: content['categories'][1].update(id=1), ERROR, 'category id used twice',
    ),
    'image of no size': (
        lambda content: content['images'][0].update(width=0), ERROR, 'impossible image size',
    ),
    'image of endless size': (
        lambda content: content['images'][0].update(width=1e300), ERROR, 'impossible image size',
    ),
    'crowd in words': (set_first(iscrowd='no'), ERROR, 'iscrowd that is neither 0 nor 1'),
    'crowd null': (set_first(iscrowd=None), ERROR, 'iscrowd that is neither 0 nor 1'),
    'half a crowd': (set_first(iscrowd=0.5), ERROR, 'iscrowd that is neither 0 nor 1'),
    'endless box': (set_first(bbox=[0, 0, 1e300, 9]), ERROR, 'larger than any image'),
    'far box': (set_first(bbox=[-1e300, 0, 9, 9]), ERROR, 'larger than any image'),
    'box of a long number': (set_first(bbox=[0, 0, 10**400, 9]), ERROR, 'larger than any image'),
    'endless area': (set_first(area=1e300), ERROR, 'larger than any image'),
    'box of booleans': (set_first(bbox=[True] * 4), ERROR, 'is not a number'),
    'another size': (
        lambda content: content['images'][0].update(width=99), ERROR,
        'image of another size than its annotations',
    ),
}  # fmt: skip


def judged(reports, severity, kind) -> bool:
    found = [finding for report in reports for finding in report.findings]
    return any(finding.severity == severity and kind in finding.kind for finding in found)


@pytest.mark.parametrize(('spoil', 'severity', 'kind', 'read'), CASES.values(), ids=CASES)
def test_what_mmdet_leaves_out_or_stops_at(root, content, spoil, severity, kind, read):
    spoil(content)
    config, reports = write_and_check(root, content)
    assert judged(reports, severity, kind), summary(reports)
    if read is None:
        with pytest.raises(DataError, match=kind) as error:
            check_before_run(config, ('train', 'val'))
        assert str(root) in str(error.value)
        with pytest.raises(Exception):  # noqa: B017 (mmdet's own, of many types)
            mmdet_reads(config)
    else:
        check_before_run(config, ('train', 'val'))
        assert mmdet_reads(config) == read


@pytest.mark.parametrize(('spoil', 'severity', 'kind'), SILENT.values(), ids=SILENT)
def test_what_mmdet_does_not_notice(root, content, spoil, severity, kind):
    spoil(content)
    config, reports = write_and_check(root, content)
    assert judged(reports, severity, kind), summary(reports)
    if severity == ERROR and kind != 'image of another size than its annotations':
        with pytest.raises(DataError, match=kind):
            check_before_run(config, ('train',))


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


def compressed(runs: list[int]) -> str:
    from pycocotools import mask as codec

    return codec.frPyObjects({'size': [48, 64], 'counts': runs}, 48, 64)['counts'].decode()


def mask(**values):
    return lambda content: first(content).update(segmentation={**RLE, **values})


MASKS = {
    'uncompressed': (mask(), None, None, 12),
    'compressed': (mask(counts=compressed([1000, 2072])), None, None, 12),
    'no polygon': (set_first(segmentation=[[1, 2, 3]]), WARNING, 'instance ignored', 11),
    'half a polygon': (
        set_first(segmentation=[[1, 2, 3], [0, 0, 9, 0, 9, 9]]), WARNING, 'without three', 12,
    ),
    'no runs': (mask(counts=None), WARNING, 'without runs', 11),
    'of another size': (mask(size=[10, 10]), ERROR, 'mask of another size', 'silent'),
    'compressed of another size': (
        mask(size=[10, 10], counts=compressed([1000, 2072])), ERROR, 'mask of another size', None,
    ),
    'runs too few': (mask(counts=[10, 10]), ERROR, 'do not fill', 'silent'),
    'runs too many': (mask(counts=[9999, 1]), ERROR, 'do not fill', None),
    'compressed runs too few': (mask(counts=compressed([9, 9])), ERROR, 'do not fill', 'silent'),
    'negative runs': (mask(counts=[-5, 3077]), ERROR, 'do not fill', None),
    'missing': (lambda content: first(content).pop('segmentation'), ERROR, 'mask missing', None),
    'flat': (set_first(segmentation=[1, 2, 3, 4, 5, 6]), ERROR, 'not a list of polygons', None),
    'text': (set_first(segmentation=[['a'] * 6]), ERROR, 'is not a number', None),
    'endless polygon': (
        set_first(segmentation=[[0, 0, 1e300, 0, 9, 9]]), ERROR, 'larger than any image', 'silent',
    ),
    'no RLE': (set_first(segmentation={'runs': 1}), ERROR, 'neither polygons', 'silent'),
}  # fmt: skip


@pytest.mark.parametrize(('spoil', 'severity', 'kind', 'read'), MASKS.values(), ids=MASKS)
def test_masks(root, content, spoil, severity, kind, read):
    spoil(content)
    config, reports = write_and_check(root, content, masks=True)
    if severity is None:
        assert not [finding for report in reports for finding in report.findings]
    else:
        assert judged(reports, severity, kind), summary(reports)
    if read is None:
        with pytest.raises(Exception):  # noqa: B017 (mmdet's own, of many types)
            mmdet_reads(config, masks=True)
    elif read != 'silent':
        assert mmdet_reads(config, masks=True) == read
    without, reports = write_and_check(root, content)
    assert not judged(reports, ERROR, '') and mmdet_reads(without) == 12, 'masks are not read'


def test_compressed_runs_are_read_as_pycocotools_writes_them():
    generator = np.random.default_rng(0)
    for _ in range(50):
        runs = generator.integers(0, 2000, generator.integers(1, 12)).tolist()
        from pycocotools import mask as codec

        text = codec.frPyObjects({'size': [1, sum(runs)], 'counts': runs}, 1, sum(runs))['counts']
        assert _decompress(text.decode()) == runs


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


@pytest.mark.parametrize(
    'name', ['a\0.png', 'a\0/a.png', '\ud800.png', '\ud800/a.png', '', '..', 'x' * 5000]
)
def test_names_that_no_file_has(root, content, name):
    content['images'][0]['file_name'] = name
    small_data.write_coco(root, content)
    with pytest.raises(DataError, match=r'image file missing|file name of the wrong type') as error:
        check_before_run(small_data.detector_config(root), ('train',))
    str(error.value).encode()


@pytest.mark.parametrize(
    'name', ['../train/a.png', './a.png', '{root}/images/train/a.png', 'ä 日本.png']
)
def test_names_that_files_have(root, content, name):
    small_data.write_images(root, ['ä 日本.png'])
    content['images'][0]['file_name'] = name.format(root=root)
    config, reports = write_and_check(root, content)
    assert not judged(reports, ERROR, ''), summary(reports)
    assert mmdet_reads(config) == 12


def evaluate_truth(config) -> float:
    """COCO's metric, by mmdet, of predictions that are the validation data themselves."""
    init_default_scope('mmdet')
    dataset = DATASETS.build({**config.val_dataloader.dataset, 'pipeline': []})
    metric = METRICS.build(config.val_evaluator)
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        sample = dataset.get_data_info(index)
        instances = sample['instances']
        found = {
            'bboxes': torch.tensor([instance['bbox'] for instance in instances]),
            'labels': torch.tensor([instance['bbox_label'] for instance in instances]),
            'scores': torch.ones(len(instances)),
        }
        size = sample['height'], sample['width']
        metric.process(
            {}, [{'img_id': sample['img_id'], 'ori_shape': size, 'pred_instances': found}]
        )
    return metric.evaluate(len(dataset))['coco/bbox_mAP']


def test_annotations_without_iscrowd(root, content, capsys):
    del first(content)['iscrowd'], content['annotations'][5]['iscrowd']
    small_data.write_coco(root, content)
    config = small_data.detector_config(root)
    check_before_run(config, ('train',))
    assert 'iscrowd' not in capsys.readouterr().out, 'mmdet trains with 0'
    with pytest.raises(DataError, match='without iscrowd') as error:
        check_before_run(config, ('train', 'val'))
    file = root / 'annotations/instances_val.json'
    assert f'{file}, annotation 1: 2 of 12. python' in str(error.value)
    assert f'--add-iscrowd {file} {root}/annotations/instances_val.iscrowd.json' in str(error.value)
    with pytest.raises(KeyError, match='iscrowd'):
        evaluate_truth(config)


def test_a_copy_with_iscrowd(root, content, monkeypatch, capsys):
    del first(content)['iscrowd']
    content['info'] = {'year': 2026}
    small_data.write_coco(root, content)
    config = REPOSITORY / 'configs/retinanet_edgevit_xxs_shapes.py'
    file = root / 'annotations/instances_val.json'
    copy_ = file.with_suffix('.iscrowd.json')
    arguments = ['--add-iscrowd', file, copy_, '--val-data', copy_, root / 'images/val']
    assert run_tool(monkeypatch, config, '--data-root', root, *arguments) == 0
    assert f'{copy_}: iscrowd added to 1 annotations' in capsys.readouterr().out
    first(content)['iscrowd'] = 0
    assert json.loads(copy_.read_text()) == content
    changed = small_data.detector_config(root)
    changed.val_dataloader.dataset.ann_file = changed.val_evaluator.ann_file = str(copy_)
    assert evaluate_truth(changed) == 1
    for here, there in ((file, copy_), (root / 'gone.json', root / 'new.json')):
        assert run_tool(monkeypatch, config, '--add-iscrowd', here, there) == 2


IDS = {
    'text': lambda key: f'x{key}',
    'floats': float,
    'halves': lambda key: key + 0.5,
    'negative': lambda key: key - 20,
    'large': lambda key: key + 2**60,
    'endless': lambda key: key + 10**400,
    'mixed': lambda key: key if key > 1 else 'one',
    'halves of characters': lambda key: f'\ud800{key}',
}


@pytest.mark.parametrize('make', IDS.values(), ids=IDS)
@pytest.mark.parametrize('kind', ['annotations', 'images', 'categories'])
def test_ids_that_pass_are_evaluated(root, content, kind, make):
    """What the check lets through is neither lost nor mistaken by pycocotools."""
    for entry in content[kind]:
        entry['id'] = make(entry['id'])
    key = {'images': 'image_id', 'categories': 'category_id'}.get(kind)
    for entry in content['annotations'] if key else ():
        entry[key] = make(entry[key])
    config, reports = write_and_check(root, content)
    summary(reports).encode()
    if not judged(reports, ERROR, ''):
        assert mmdet_reads(config) == 12
        assert evaluate_truth(config) == 1


def test_a_hundred_thousand_annotations_in_one_image(root, content):
    content['annotations'] = [{**first(content), 'id': number} for number in range(1, 100_001)]
    use = CocoUse('a.json', str(root / 'images/train'), small_data.CLASSES, with_mask=True)
    result = check_coco(content, use)
    assert len(result.annotations[1]) == 100_000


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
    from lightvit_mm.data.checking import write_reports

    set_first(area=0)(content)
    _, reports = write_and_check(root, content)
    write_reports(reports, tmp_path / 'all.json')
    written = json.loads((tmp_path / 'all.json').read_text())
    assert written[0]['part'] == 'train'
    assert written[0]['images'] == 3
    assert written[0]['findings'][0]['item'] == 'annotation 1'


def test_where_findings_are_written(root, content, tmp_path):
    from lightvit_mm.data.checking import check_reports_file, write_reports

    config, reports = write_and_check(root, content)
    for some in ([], reports):
        check_reports_file(config, tmp_path / 'new/all.json')
        write_reports(some, tmp_path / 'new/all.json')
    check_reports_file(config, tmp_path / 'new/all.json')
    annotations = root / 'annotations/instances_val.json'
    (tmp_path / 'other.json').write_text(annotations.read_text())
    for file, said in (
        (annotations, 'is an input'),
        (tmp_path / 'other.json', 'this tool did not write it'),
        (annotations / 'all.json', 'cannot be written'),
        (tmp_path, 'is a folder'),
    ):
        with pytest.raises(UserError, match=said):
            check_reports_file(config, file)


def run_tool(monkeypatch, *arguments) -> int:
    tool = REPOSITORY / 'tools/check_data.py'
    monkeypatch.setattr('sys.argv', [str(tool), *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(tool), run_name='__main__')
    return ended.value.code


def test_exit_status(root, content, monkeypatch, capsys):
    set_first(area=0)(content)
    small_data.write_coco(root, content)
    config = REPOSITORY / 'configs/retinanet_edgevit_xxs_shapes.py'
    arguments = [config, '--data-root', root]
    assert run_tool(monkeypatch, *arguments) == 0
    assert '0 errors, 2 warnings, 0 notes' in capsys.readouterr().out
    (root / 'images/val/b.png').unlink()
    monkeypatch.setattr('lightvit_mm.data.checking.check_everything', pytest.fail)
    assert run_tool(monkeypatch, *arguments, '--out', config) == 2
    assert f'--out {config} exists' in capsys.readouterr().err
    monkeypatch.undo()
    assert run_tool(monkeypatch, *arguments, '--out', root / 'all.json') == 1
    said = capsys.readouterr().out
    assert f'image 2: {root}/images/val/b.png' in said
    assert '1 errors, 2 warnings, 0 notes: training would stop' in said
    assert said.rstrip().endswith(f'all of them in {root}/all.json')
    (root / 'annotations/instances_val.json').unlink()
    assert run_tool(monkeypatch, *arguments) == 2
    assert 'instances_val.json' in capsys.readouterr().err
