"""The user's own images and label maps replace those of a segmentor's config."""

import json
import os

import numpy as np
import pytest
from helpers import small_data
from helpers.repository import REPOSITORY
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from lightvit_mm.data.checking import check_before_run
from lightvit_mm.data.config import check_data, retarget_data
from lightvit_mm.data.own import use_own_data
from lightvit_mm.engine.configs import load_config
from lightvit_mm.errors import UserError

SEGMENTOR = str(REPOSITORY / 'configs/segformer_edgevit_xxs_ade20k.py')
UPERNET = str(REPOSITORY / 'configs/upernet_edgevit_xxs_ade20k.py')
DETECTOR = str(REPOSITORY / 'configs/retinanet_edgevit_xxs_coco.py')
CLASSES = {'classes': ['land', 'water'], 'palette': [[132, 41, 246], [0, 0, 255]]}
PLACE = ('own/images', 'own/labels')
ALL = ('train', 'val', 'test')


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Photos and label maps of two classes, one of them in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for folder in ('images/north', 'labels/north'):
        (tmp_path / 'own' / folder).mkdir(parents=True)
    for name in ('a', 'north/b'):
        Image.fromarray(small_data.pixels()).save(f'own/images/{name}.jpg')
        Image.fromarray(small_data.pixels(channels=1) % 2).save(f'own/labels/{name}.png')
    (tmp_path / 'classes.json').write_text(json.dumps(CLASSES))
    return tmp_path / 'own'


def first_sample(config, part='train'):
    init_default_scope('mmseg')
    dataset = config[f'{part}_dataloader'].dataset
    dataset = {**dataset, 'pipeline': [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}]}
    return DATASETS.build(dataset)[0]


def test_everything_is_replaced(own, capsys):
    config = load_config(UPERNET)
    use_own_data(config, PLACE, PLACE, 'classes.json')
    check_before_run(config, ALL)
    assert config.model.decode_head.num_classes == 2
    assert config.model.auxiliary_head.num_classes == 2
    for part in ALL:
        dataset = DATASETS.build(config[f'{part}_dataloader'].dataset)
        assert len(dataset) == 2
        assert dataset.metainfo['classes'] == ('land', 'water')
        assert dataset.metainfo['palette'] == [(132, 41, 246), (0, 0, 255)]
        # The pipelines of the config, which was made for labels that begin at 1.
        labels = dataset[0]['data_samples'].gt_sem_seg.data.unique().tolist()
        assert set(labels) - {255} == {0, 1}
    said = capsys.readouterr().out
    assert 'classes from classes.json: land, water; label 0 is land (reduce_zero_label=Fal' in said
    assert 'model.auxiliary_head.num_classes 150 -> 2' in said


def test_labels_that_begin_at_one(own, capsys):
    for file in own.glob('labels/**/*.png'):
        Image.fromarray(small_data.pixels(channels=1) % 2 + 1).save(file)
    config = load_config(SEGMENTOR)
    use_own_data(config, PLACE, PLACE, 'classes.json')
    with pytest.raises(UserError, match=r'unknown labels.*\n.*\[2\].*"reduce_zero_label": true'):
        check_before_run(config, ('train',))
    (own.parent / 'classes.json').write_text(json.dumps({**CLASSES, 'reduce_zero_label': True}))
    config = load_config(SEGMENTOR)
    use_own_data(config, PLACE, PLACE, 'classes.json')
    check_before_run(config, ALL)
    assert set(np.unique(first_sample(config)['gt_seg_map'])) == {0, 1}
    assert 'label 0 is ignored, label 1 is land (reduce_zero_label=True)' in capsys.readouterr().out


def test_a_saved_config_of_own_data_keeps_its_classes(own):
    config = load_config(SEGMENTOR)
    use_own_data(config, PLACE, PLACE, 'classes.json')
    config.dump('saved.py')
    os.rename('own', 'moved')
    config = load_config('saved.py')
    place = ('moved/images', 'moved/labels')
    use_own_data(config, place, place)
    check_before_run(config, ALL)
    assert list(config.train_dataloader.dataset.metainfo.classes) == ['land', 'water']
    assert config.train_dataloader.dataset.reduce_zero_label is False


def test_ade20k_in_other_folders_is_still_ade20k(own):
    config = load_config(SEGMENTOR)
    use_own_data(config, PLACE, PLACE)
    check_before_run(config, ())
    dataset = config.val_dataloader.dataset
    assert dataset.type == 'BaseSegDataset'
    assert len(dataset.metainfo.classes) == 150
    assert dataset.reduce_zero_label is True
    # Label 1 is the first class, and label 0 is ignored.
    assert set(np.unique(first_sample(config, 'val')['gt_seg_map'])) == {0, 255}


def test_such_a_config_can_be_moved_by_data_root(own):
    config = load_config(SEGMENTOR)
    use_own_data(config, PLACE, PLACE, 'classes.json')
    os.rename('own', 'moved')
    with pytest.raises(UserError, match='own/images'):
        check_data(config, ('train',))
    retarget_data(config, 'moved')
    check_data(config, ALL)


def test_kinds_that_are_mixed_up(own):
    (own / 'boxes.json').write_text('{}')
    config = load_config(SEGMENTOR)
    for pair in (('own/boxes.json', 'own/images'), ('own/images', 'own/boxes.json')):
        with pytest.raises(UserError, match=r'IMAGES LABELS: own/boxes\.json is a file\. A segm'):
            use_own_data(config, pair)
    with pytest.raises(UserError, match=r'absent is not a folder'):
        use_own_data(config, ('own/images', 'absent'))
    with pytest.raises(UserError, match=r'is given for both; they must be two folders'):
        use_own_data(config, ('own/images', 'own/images/.'))
    with pytest.raises(UserError, match=r'own/images has photos and .*the other way round'):
        use_own_data(config, ('own/labels', 'own/images'))
    with pytest.raises(UserError, match=r'ANN IMAGES: own/images is not a file .*a segmentor fol'):
        use_own_data(load_config(DETECTOR), PLACE)
    with pytest.raises(UserError, match=r'it is a COCO file, which is for detectors'):
        (own / 'boxes.json').write_text('{"images": [], "categories": []}')
        use_own_data(config, PLACE, PLACE, 'own/boxes.json')


def test_names_that_do_not_fit(own):
    config = load_config(SEGMENTOR)
    Image.fromarray(small_data.pixels()).save('own/images/c.png')
    with pytest.raises(UserError, match=r'several kinds \(2 \.jpg, 1 \.png\), of which mmseg read'):
        use_own_data(config, PLACE)
    os.remove('own/images/c.png')
    (own / 'labels/a.png').rename(own / 'labels/a_mask.png')
    (own / 'labels/north/b.png').rename(own / 'labels/b.png')
    with pytest.raises(UserError, match=r'no image has the name of a label map \(a\.jpg and'):
        use_own_data(config, PLACE)
    with pytest.raises(UserError, match=r'own has no images'):
        os.makedirs('empty/own')
        use_own_data(config, ('empty/own', 'own/labels'))


def test_missing_partners(own, capsys):
    (own / 'labels/a.png').rename(own / 'labels/c.png')
    config = load_config(SEGMENTOR)
    use_own_data(config, PLACE, PLACE, 'classes.json')
    with pytest.raises(UserError, match=r'label map missing \(1\)\n.*labels/a\.png: of .*a\.jpg'):
        check_before_run(config, ('train',))
    (own / 'images/a.jpg').unlink()
    check_before_run(config, ('train',))
    said = capsys.readouterr().out
    assert 'label map without an image, left out (1)' in said
    assert 'labels/c.png' in said


def test_colour_coded_masks(own):
    config = load_config(SEGMENTOR)
    colours = np.array([[132, 41, 246], [0, 0, 255]], dtype=np.uint8)
    Image.fromarray(colours[small_data.pixels(channels=1) % 2]).save('own/labels/a.png')
    with pytest.raises(UserError, match=r'a\.png is no label map: it has 2 colours.*convert_masks'):
        use_own_data(config, PLACE)
    Image.fromarray(small_data.pixels(channels=1).astype(np.uint16)).save('own/labels/a.png')
    with pytest.raises(UserError, match=r'pixels of the kind I;16.*8 bits per pixel'):
        use_own_data(config, PLACE)


def test_configs_that_have_no_place_for_them(own):
    config = load_config(SEGMENTOR)
    with pytest.raises(UserError, match=r'ADE20KDataset of val_dataloader has classes of its own'):
        use_own_data(config, PLACE, classes_from='classes.json')
    config = load_config(SEGMENTOR)
    config.train_dataloader.dataset = {'type': 'ConcatDataset', 'datasets': [{}, {}]}
    with pytest.raises(UserError, match=r'train_dataloader of .* has 2'):
        use_own_data(config, PLACE)
    config = load_config(SEGMENTOR)
    config.val_dataloader.dataset.type = 'BaseCDDataset'
    with pytest.raises(UserError, match=r'val_dataloader\.dataset\.type .* is BaseCDDataset'):
        use_own_data(config, val_data=PLACE)
    config = load_config(SEGMENTOR)
    config.default_scope = 'mmpretrain'
    with pytest.raises(UserError, match=r'for configs of mmdet and mmseg; .* is one of mmpretrain'):
        use_own_data(config, PLACE)
