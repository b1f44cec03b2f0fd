"""A warning before a training or evaluation on other classes than those of the checkpoint."""

from pathlib import Path

import pytest
import torch
from helpers import small_data

from lightvit_mm.data.own import use_own_data
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.model_checks import warn_of_new_weights
from lightvit_mm.engine.running import test as evaluate
from lightvit_mm.engine.running import train
from lightvit_mm.errors import UserError

pytestmark = pytest.mark.usefixtures('quick_runner')


@pytest.fixture(scope='module')
def one_class(tmp_path_factory):
    """The small COCO data with all objects of one class."""
    root = tmp_path_factory.mktemp('one')
    small_data.write_images(root, ['a.png', 'b.png'])
    content = small_data.coco(dict.fromkeys(['a.png', 'b.png'], small_data.SIZE))
    content['categories'] = [{'id': 1, 'name': 'blob'}]
    for annotation in content['annotations']:
        annotation['category_id'] = 1
    small_data.write_coco(root, content)
    return root


def saved(model_config, file, classes=small_data.CLASSES, without=(), old=False, **heads):
    """A checkpoint of random weights of a config."""
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    config = model_config.copy()
    config.bbox_head = {**model_config.bbox_head, **heads}
    state = MODELS.build(config).state_dict()
    state = {name: value for name, value in state.items() if not name.startswith(tuple(without))}
    meta = {'dataset_meta': {'classes': classes}} if classes else {}
    meta = {'CLASSES': classes} if old else meta
    torch.save({'state_dict': state, 'meta': meta}, file)
    return str(file)


def one_class_config(root, tmp_path):
    config = small_data.tiny_detector(root, tmp_path)
    config.train_cfg.update(max_epochs=1, val_interval=9)
    ann_file, images = str(root / 'annotations/instances_train.json'), str(root / 'images/train')
    use_own_data(config, (ann_file, images), (ann_file, images), ann_file)
    return config


def test_training_begins_with_a_new_head(one_class, tmp_path):
    config = one_class_config(one_class, tmp_path)
    config.model.test_cfg.score_thr = 0.0
    config.load_from = saved(config.model, tmp_path / 'four.pth', num_classes=4)
    train(config)
    log = next(Path(config.work_dir).glob('*/*.log')).read_text()
    (said,) = [line for line in log.splitlines() if 'initial values' in line]
    assert 'it was trained on 4 classes (disk, square, triangle, star)' in said
    assert 'these data have 1 class (blob)' in said
    assert '2 tensors keep their initial values' in said
    assert 'bbox_head.retina_cls.weight: (36, 8, 3, 3) in the file, (9, 8, 3, 3) here' in said
    assert 'bbox_head.retina_cls.bias: (36,) in the file, (9,) here' in said
    content = torch.load(f'{config.work_dir}/epoch_1.pth', weights_only=False)
    assert list(content['meta']['dataset_meta']['classes']) == ['blob']
    # The saved config evaluates without options, and refuses another number of classes.
    own = load_config(f'{config.work_dir}/retinanet_edgevit_xxs_shapes.py')
    own.work_dir = str(tmp_path / 'test')
    assert 'coco/bbox_mAP' in evaluate(own, f'{config.work_dir}/epoch_1.pth')
    own.resume = True  # as a resumed run saves it
    with pytest.raises(UserError, match='2 tensors do not fit'):
        evaluate(own, config.load_from)


def test_resuming_needs_the_same_head(one_class, tmp_path):
    config = one_class_config(one_class, tmp_path)
    file = saved(config.model, tmp_path / 'four.pth', num_classes=4)
    with pytest.raises(UserError, match='2 tensors do not fit'):
        train(config, resume=file)


def warnings(config, file, classes, mm_log):
    from mmdet.registry import MODELS

    model = MODELS.build(config.model)
    mm_log.clear()
    warn_of_new_weights(model, file, classes)
    return mm_log


def test_warnings(one_class, tmp_path, mm_log):
    config = one_class_config(one_class, tmp_path)
    model, file = config.model, tmp_path / 'any.pth'
    assert not warnings(config, saved(model, file, ('blob',)), ('blob',), mm_log)
    assert not warnings(config, saved(model, file, None), ('blob',), mm_log)
    # One class in both, so that every tensor fits.
    (said,) = warnings(config, saved(model, file, ('cat',)), ('blob',), mm_log)
    assert 'trained on 1 class (cat), these data have 1 class (blob)' in said
    assert 'initial' not in said
    (said,) = warnings(config, saved(model, file, ('cat',), old=True), ('blob',), mm_log)
    assert 'trained on 1 class (cat)' in said
    # A file with only the backbone.
    (said,) = warnings(config, saved(model, file, None, ['neck', 'bbox_head']), ('blob',), mm_log)
    assert '24 tensors keep' in said
    assert '12 of neck: missing in the file; 12 of bbox_head: missing in the file' in said
    # Another width of the head.
    (said,) = warnings(config, saved(model, file, None, feat_channels=16), ('blob',), mm_log)
    assert said.count(' in the file, ') == 8
    assert 'and 2 more of another shape' in said
