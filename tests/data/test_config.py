"""A missing data set is reported before anything is built."""

import pytest
from helpers.repository import REPOSITORY
from mmengine.config import Config

from lightvit_mm.data.config import MissingDataError, check_data, retarget_data


def test_missing_coco(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config.fromfile(REPOSITORY / 'configs/retinanet_edgevit_s_coco.py')
    with pytest.raises(MissingDataError) as error:
        check_data(config, ('train', 'val'))
    message = str(error.value)
    for part in (
        'data/coco/annotations/instances_train2017.json',
        'data/coco/annotations/instances_val2017.json',
        'data/coco/train2017\n',
        'data/coco/val2017\n',
        str(tmp_path),
        'images.cocodataset.org',
        '--data-root',
    ):
        assert part in message
    assert message.count('instances_val2017.json') == 1


def test_only_the_parts_that_are_read_are_looked_for(shapes):
    config = Config.fromfile(REPOSITORY / 'configs/retinanet_edgevit_xxs_shapes.py')
    retarget_data(config, str(shapes))
    check_data(config, ('train', 'val', 'test'))
    config.val_dataloader.dataset.data_prefix.img = 'images/elsewhere/'
    check_data(config, ('train', 'test'))
    with pytest.raises(MissingDataError, match='images/elsewhere'):
        check_data(config, ('val',))


@pytest.mark.parametrize('root', ['/other/coco', '/other/coco/'])
def test_retargeting(root):
    config = Config.fromfile(REPOSITORY / 'configs/retinanet_edgevit_s_coco.py')
    config.train_dataloader.dataset = {
        'type': 'RepeatDataset',
        'times': 2,
        'dataset': {'type': 'ConcatDataset', 'datasets': [config.train_dataloader.dataset]},
    }
    retarget_data(config, root)
    inner = config.train_dataloader.dataset.dataset.datasets[0]
    assert inner.data_root == '/other/coco/'
    for part in ('val', 'test'):
        assert config[f'{part}_dataloader'].dataset.data_root == '/other/coco/'
        file = config[f'{part}_evaluator'].ann_file
        assert file == '/other/coco/annotations/instances_val2017.json'


def test_retargeting_leaves_other_paths_alone():
    config = Config.fromfile(REPOSITORY / 'configs/retinanet_edgevit_s_coco.py')
    config.val_evaluator.ann_file = '/mine/instances.json'
    retarget_data(config, '/other')
    assert config.val_evaluator.ann_file == '/mine/instances.json'
