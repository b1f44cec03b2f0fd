"""Every bad annotation is refused or reported before the first step, as mmdet would treat it."""

import pytest
from helpers import small_data
from helpers.annotations import (
    evaluate_truth,
    first,
    judged,
    mmdet_reads,
    set_first,
    write_and_check,
)

from lightvit_mm.data.checking import check_before_run, summary
from lightvit_mm.data.coco_checks import CocoUse, check_coco
from lightvit_mm.data.findings import ERROR, NOTE, WARNING, DataError


def drop_all(content):
    content['annotations'] = []


def crowd_only(content):
    for annotation in content['annotations'][:4]:
        annotation['iscrowd'] = 1


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
        assert evaluate_truth(config) == 1


class CountedId(str):
    """An id that counts how often it is looked at."""

    looks = 0

    def __hash__(self):
        CountedId.looks += 1
        return super().__hash__()

    def __eq__(self, other):
        CountedId.looks += 1
        return super().__eq__(other)


def test_each_annotation_is_looked_at_a_few_times(root, content):
    """However many there are: 100,000 in one image were said to take 19 seconds once."""
    use = CocoUse('a.json', str(root / 'images/train'), small_data.CLASSES, with_mask=True)
    content['images'][0]['id'] = 'a'
    for number in (1000, 2000):
        content['annotations'] = [
            {**first(content), 'id': CountedId(index), 'image_id': CountedId('a')}
            for index in range(number)
        ]
        CountedId.looks = 0
        assert len(check_coco(content, use).annotations['a']) == number
        assert CountedId.looks < 20 * number
