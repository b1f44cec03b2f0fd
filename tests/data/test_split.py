"""An annotation file is split in two."""

import json

import pytest
from helpers import small_data

from lightvit_mm.data.split import split_coco
from lightvit_mm.errors import UserError


@pytest.fixture
def ann_file(tmp_path):
    names = [f'{number}.png' for number in range(10)]
    content = {**small_data.coco(dict.fromkeys(names, small_data.SIZE)), 'info': {'year': 2026}}
    file = tmp_path / 'all.json'
    file.write_text(json.dumps(content))
    return file


def test_every_image_and_annotation_is_in_one_part(ann_file):
    whole = json.loads(ann_file.read_text())
    made = split_coco(str(ann_file), 0.3)
    assert {file.name: number for file, number in made.items()} == {
        'all_train.json': 7,
        'all_val.json': 3,
    }
    train, val = (json.loads(file.read_text()) for file in made)
    for part in (train, val):
        assert part['categories'] == whole['categories']
        assert part['info'] == whole['info']
        ids = {image['id'] for image in part['images']}
        assert {annotation['image_id'] for annotation in part['annotations']} == ids
    for key in ('images', 'annotations'):
        both = sorted(train[key] + val[key], key=lambda entry: entry['id'])
        assert both == whole[key]


def test_the_seed_decides_and_nothing_is_overwritten(ann_file):
    split_coco(str(ann_file), 0.3)
    first = (ann_file.parent / 'all_val.json').read_text()
    split_coco(str(ann_file), 0.3)
    with pytest.raises(UserError, match='exists and holds something else'):
        split_coco(str(ann_file), 0.3, seed=1)
    assert (ann_file.parent / 'all_val.json').read_text() == first


def test_neither_part_is_empty(ann_file):
    assert list(split_coco(str(ann_file), 0.01).values()) == [9, 1]


@pytest.mark.parametrize('share', [0, 1, 20])
def test_what_is_no_share(ann_file, share):
    with pytest.raises(UserError, match='between 0 and 1'):
        split_coco(str(ann_file), share)


def test_files_that_cannot_be_split(tmp_path):
    with pytest.raises(UserError, match='no such file'):
        split_coco(str(tmp_path / 'gone.json'), 0.2)
    file = tmp_path / 'one.json'
    file.write_text(json.dumps(small_data.coco({'a.png': small_data.SIZE})))
    with pytest.raises(UserError, match='has 1 images'):
        split_coco(str(file), 0.2)


@pytest.mark.parametrize(
    ('key', 'said'),
    [(1, 'used twice'), (None, 'no number or text'), ([1], 'no number'), (True, 'no number')],
)
def test_images_without_ids_of_their_own(ann_file, key, said):
    content = json.loads(ann_file.read_text())
    content['images'][4]['id'] = key
    ann_file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf'image 4\.png has the id .* {said}'):
        split_coco(str(ann_file), 0.3)
    assert list(ann_file.parent.iterdir()) == [ann_file]


@pytest.mark.parametrize('key', [99, None, [1]])
def test_annotations_of_no_image_are_counted(ann_file, capsys, key):
    content = json.loads(ann_file.read_text())
    content['annotations'][0]['image_id'] = key
    ann_file.write_text(json.dumps(content))
    made = split_coco(str(ann_file), 0.3)
    assert 'warning: 1 annotations of' in capsys.readouterr().out
    assert sum(len(json.loads(file.read_text())['annotations']) for file in made) == 39


def test_a_file_in_the_way_that_is_no_text(ann_file):
    (ann_file.parent / 'all_val.json').write_bytes(b'\xff')
    with pytest.raises(UserError, match='exists and holds something else'):
        split_coco(str(ann_file), 0.3)
