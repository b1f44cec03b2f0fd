"""Every command of docs/finetune.md, on a few small pictures."""

import json
from pathlib import Path

import pytest
import torch
from helpers import small_data
from helpers.doc_pages import blocks, commands
from helpers.doc_runs import run_command, save_detector_of_the_quickstart
from helpers.repository import REPOSITORY

from lightvit_mm.data.checking import check_before_run
from lightvit_mm.data.own import use_own_data
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.model_checks import check_channels

pytestmark = pytest.mark.slow

PAGE = REPOSITORY / 'docs/finetune.md'
# Two epochs instead of eight, and no score threshold, so that there is something to evaluate.
SHORT = [
    'train_cfg.max_epochs={epochs}',
    'model.test_cfg.score_thr=0',
    'train_dataloader.num_workers=0',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
    'default_hooks.logger.interval=1',
]


def one_class(names):
    """The small COCO data with every object a nucleus."""
    content = small_data.coco(dict.fromkeys(names, small_data.SIZE))
    content['categories'] = [{'id': 1, 'name': 'nucleus'}]
    for annotation in content['annotations']:
        annotation['category_id'] = 1
    return content


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A working directory with everything that the commands refer to."""
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    names = ['a.png', 'b.png', 'c.png']
    small_data.write_images(tmp_path / 'data/nuclei', names)
    small_data.write_coco(tmp_path / 'data/nuclei', one_class(names))
    (tmp_path / 'data/all.json').write_text(json.dumps(one_class(names)))
    (tmp_path / 'nuclei.py').write_text(blocks(PAGE, 'python')[0])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(words, monkeypatch, capfd, epochs):
    """Run a command of the page with a short schedule."""
    more = []
    if words[1] in ('tools/train.py', 'tools/test.py'):
        more = ['--cfg-options', *(option.format(epochs=epochs) for option in SHORT)]
    return run_command(words, monkeypatch, capfd, more)


def test_every_command(checkout, monkeypatch, capfd, quick_runner):
    save_detector_of_the_quickstart(checkout / 'work_dirs/quickstart/epoch_4.pth')
    quickstart, environment, *page = commands(PAGE)
    # The first two commands are not run: the checkpoint above replaces their results.
    assert quickstart == ['bash', 'tools/quickstart.sh']
    assert environment == ['source', '.venv/bin/activate']
    assert [Path(words[1]).stem for words in page] == [
        'split_coco', 'check_data', 'train', 'train', 'test', 'predict', 'report',
    ]  # fmt: skip
    split, check, train, resume, test, predict, report = page
    run(split, monkeypatch, capfd, 0)
    assert len(json.loads(Path('data/all_val.json').read_text())['images']) == 1
    assert '0 errors' in run(check, monkeypatch, capfd, 0)
    said = run(train, monkeypatch, capfd, 1)
    assert 'these data have 1 class (nucleus); 2 tensors keep their initial values' in said
    assert 'decay_rate=0.8' in said
    assert Path('work_dirs/nuclei/epoch_1.pth').is_file()
    said = run(resume, monkeypatch, capfd, 2)
    assert 'resumed epoch: 1' in said
    (best,) = Path('work_dirs/nuclei').glob('best_coco_bbox_mAP_epoch_*.pth')
    content = torch.load(best, weights_only=False)
    assert content['meta']['dataset_meta']['classes'] == ('nucleus',)
    assert 'ema_state_dict' in content
    assert 'coco/bbox_mAP' in run(test, monkeypatch, capfd, 2)
    run(predict, monkeypatch, capfd, 2)
    found = json.loads(Path('nuclei_pictures/predictions.json').read_text())
    assert len(found['images']) == 3
    assert Path('nuclei_pictures/a.png').is_file()
    classes = {box['class'] for image in found['images'] for box in image['detections']}
    assert classes <= {'nucleus'}
    run(report, monkeypatch, capfd, 2)
    assert Path('work_dirs/nuclei/report.html').is_file()


MASKS = {
    'retinanet_edgevit_xxs_shapes': 'mask_rcnn_repvit_m0_9_coco',
    'with_bbox=True': 'with_bbox=True, with_mask=True',
    'test_cfg=dict(max_per_img=300)': 'test_cfg=dict(rcnn=dict(max_per_img=300))',
    'coco/bbox_mAP': 'coco/segm_mAP',
}
INSTANCES = {
    'retinanet_edgevit_xxs_shapes': 'rtmdet_ins_repvit_m0_9_coco',
    'with_bbox=True': 'with_bbox=True, with_mask=True',
    'coco/bbox_mAP': 'coco/segm_mAP',
}


@pytest.mark.parametrize(
    'changes', [{'retinanet_edgevit_xxs_shapes': 'retinanet_repvit_m1_1_coco'}, MASKS, INSTANCES]
)
def test_other_beginnings(checkout, changes):
    from mmdet.registry import MODELS

    text = Path('nuclei.py').read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    Path('other.py').write_text(text)
    config = load_config('other.py')
    train, val = (
        (f'data/nuclei/annotations/instances_{part}.json', f'data/nuclei/images/{part}')
        for part in ('train', 'val')
    )
    use_own_data(config, train, val, train[0])
    check_before_run(config, ('train', 'val', 'test'))
    assert config.model.backbone.init_cfg.checkpoint.startswith('https://')
    config.model.backbone.init_cfg = None
    check_channels(MODELS.build(config.model), config.model)


def test_what_the_page_says_of_the_config(checkout):
    config = load_config('nuclei.py')
    epochs = config.train_cfg.max_epochs
    assert [schedule.end for schedule in config.param_scheduler[1:]] == [epochs]
    assert config.default_hooks.checkpoint.save_best == config.custom_hooks[1].monitor
