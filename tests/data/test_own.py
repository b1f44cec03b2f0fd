"""The user's own data and classes replace those of a config."""

import json
import os

import pytest
from helpers import small_data
from helpers.repository import REPOSITORY

from lightvit_mm.data.config import check_data, retarget_data
from lightvit_mm.data.own import categories_of, set_classes, use_own_data
from lightvit_mm.engine.configs import load_config
from lightvit_mm.errors import UserError

DETECTOR = str(REPOSITORY / 'configs/retinanet_edgevit_s_coco.py')


def own_folder(root, train='boxes.json', val='more/val.json'):
    """Two COCO files and two image folders, none of them where a config looks."""
    (root / 'more').mkdir(parents=True)
    (root / 'pictures').mkdir()
    (root / 'more/pictures').mkdir()
    content = small_data.coco({'a.png': small_data.SIZE})
    for file in (train, val):
        (root / file).write_text(json.dumps(content))
    return root


def test_data_go_where_they_were_named(tmp_path, monkeypatch):
    own_folder(tmp_path / 'own')
    monkeypatch.chdir(tmp_path)
    config = load_config(DETECTOR)
    use_own_data(
        config,
        ('own/boxes.json', 'own/pictures'),
        ('own/more/val.json', str(tmp_path / 'own/more/pictures')),
    )
    dataset = config.train_dataloader.dataset
    assert (dataset.data_root, dataset.ann_file) == ('own/', 'boxes.json')
    assert dataset.data_prefix == {'img': 'pictures/'}
    assert dataset.filter_cfg.filter_empty_gt
    for part in ('val', 'test'):
        # One relative and one absolute name have an absolute folder in common.
        dataset = config[f'{part}_dataloader'].dataset
        assert dataset.data_root == f'{tmp_path}/own/more/'
        assert config[f'{part}_evaluator'].ann_file == f'{tmp_path}/own/more/val.json'
    check_data(config, ('train', 'val', 'test'))


def test_such_a_config_can_be_moved_by_data_root(tmp_path, monkeypatch):
    own_folder(tmp_path / 'own')
    monkeypatch.chdir(tmp_path / 'own')
    config = load_config(DETECTOR)
    place = ('boxes.json', 'pictures')
    use_own_data(config, place, place)
    check_data(config, ('train', 'val', 'test'))
    (tmp_path / 'own').rename(tmp_path / 'moved')
    os.chdir(tmp_path)
    with pytest.raises(UserError, match=r'boxes\.json'):
        check_data(config, ('train',))
    retarget_data(config, 'moved')
    check_data(config, ('train', 'val', 'test'))
    assert config.test_evaluator.ann_file == 'moved/boxes.json'


@pytest.mark.parametrize(
    ('place', 'said'),
    [
        (('boxes.json', 'nowhere'), 'nowhere is not a folder'),
        (('nowhere.json', 'pictures'), 'nowhere.json is not a file'),
        (('pictures', 'boxes.json'), 'pictures is not a file'),
    ],
)
def test_files_that_are_not_there(tmp_path, monkeypatch, place, said):
    own_folder(tmp_path / 'own')
    monkeypatch.chdir(tmp_path / 'own')
    with pytest.raises(UserError, match=rf'--train-data ANN IMAGES: {said}'):
        use_own_data(load_config(DETECTOR), place)


def test_configs_that_have_no_place_for_them(tmp_path):
    root = own_folder(tmp_path / 'own')
    place = (str(root / 'boxes.json'), str(root / 'pictures'))
    config = load_config(DETECTOR)
    config.train_dataloader.dataset.type = 'VOCDataset'
    with pytest.raises(UserError, match=r'train_dataloader\.dataset\.type .* is VOCDataset'):
        use_own_data(config, place)
    two = [config.val_dataloader.dataset] * 2
    config.train_dataloader.dataset = {'type': 'ConcatDataset', 'datasets': two}
    with pytest.raises(UserError, match=r'train_dataloader of .* has 2'):
        use_own_data(config, place)


def test_classes_of_every_head_and_data_set(tmp_path, capsys):
    root = own_folder(tmp_path / 'own')
    config = load_config(str(REPOSITORY / 'configs/mask_rcnn_edgevit_xxs_coco.py'))
    # As in mmdet's Cascade R-CNN.
    roi_head = config.model.roi_head
    roi_head.bbox_head = [roi_head.bbox_head.copy() for _ in range(3)]
    set_classes(config, str(root / 'boxes.json'))
    assert [head.num_classes for head in roi_head.bbox_head] == [4, 4, 4]
    assert roi_head.mask_head.num_classes == 4
    for part in ('train', 'val', 'test'):
        assert config[f'{part}_dataloader'].dataset.metainfo.classes == small_data.CLASSES
    said = capsys.readouterr().out
    assert 'disk, square, triangle, star' in said
    assert 'model.roi_head.bbox_head.2.num_classes 80 -> 4' in said


def test_a_config_without_a_number_of_classes(tmp_path):
    root = own_folder(tmp_path / 'own')
    config = load_config(DETECTOR)
    del config.model.bbox_head.num_classes
    with pytest.raises(UserError, match=r'no bbox_head or .* has num_classes'):
        set_classes(config, str(root / 'boxes.json'))


def test_more_classes_than_coco_has_colours(tmp_path):
    from mmdet.visualization import get_palette

    names = [f'kind {number}' for number in range(100)]
    categories = [{'id': number, 'name': name} for number, name in enumerate(names)]
    file = tmp_path / 'many.json'
    file.write_text(json.dumps({'images': [], 'categories': categories}))
    config = load_config(DETECTOR)
    set_classes(config, str(file))
    metainfo = config.test_dataloader.dataset.metainfo
    assert list(metainfo.classes) == names
    assert len(get_palette(metainfo.palette, 100)) == 100


def test_categories_are_in_the_order_by_which_mmdet_numbers_them(tmp_path):
    from pycocotools.coco import COCO

    categories = [{'id': 7, 'name': 'b'}, {'id': 2, 'name': 'a'}, {'id': 5, 'name': 'c'}]
    content = {'images': [], 'annotations': [], 'categories': categories}
    file = tmp_path / 'mixed.json'
    file.write_text(json.dumps(content))
    classes = categories_of(str(file))
    assert classes == ('b', 'a', 'c')
    coco = COCO(str(file))
    names = {category['id']: category['name'] for category in categories}
    assert classes == tuple(names[number] for number in coco.getCatIds(catNms=list(classes)))


@pytest.mark.parametrize(
    ('categories', 'said'),
    [
        ([], 'its list of categories is empty'),
        (None, 'has no list of objects called categories'),
        ([{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'a'}], 'categories of the same name: a'),
        ([{'id': 1, 'name': 'a'}, {'id': 1, 'name': 'b'}], 'categories of the same id: 1'),
        ([{'id': 1}], 'without id or name'),
        ([{'name': 'a'}], 'without id or name'),
        ([{'id': 1, 'name': 5}], 'without id or name'),
    ],
)
def test_categories_that_cannot_be_classes(tmp_path, categories, said):
    file = tmp_path / 'categories.json'
    file.write_text(json.dumps({'images': [], 'categories': categories}))
    with pytest.raises(UserError, match=said):
        categories_of(str(file))


def test_no_file_of_categories(tmp_path):
    with pytest.raises(UserError, match=r'--classes-from .*gone.json: there is no such file'):
        categories_of(str(tmp_path / 'gone.json'))
    (tmp_path / 'cut.json').write_text('{"images": [')
    with pytest.raises(UserError, match='not valid JSON'):
        categories_of(str(tmp_path / 'cut.json'))
