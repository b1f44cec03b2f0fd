"""The commands of docs/pretrain.md, on a few small pictures: its photos if they are there."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from helpers import class_folders, timm_reference
from helpers.doc_pages import blocks, commands
from helpers.doc_runs import run_command
from helpers.repository import REPOSITORY
from mmengine.registry import MODELS, init_default_scope

from lightvit_mm.engine.configs import load_config

pytestmark = pytest.mark.slow

PAGE = REPOSITORY / 'docs/pretrain.md'
PHOTOS = REPOSITORY / 'data/clothing'  # where the page has them
KINDS = ('dress', 'hat', 'pants')
LOADERS = [
    f'{part}_dataloader.{option}'
    for part in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]


def short(epochs=1):
    return [f'train_cfg.max_epochs={epochs}', 'train_cfg.val_interval=1', *LOADERS]


def copy_photos(target):
    """Eight and four photos of three classes."""
    for part, number in (('train', 8), ('val', 4)):
        for kind in KINDS:
            (target / part / kind).mkdir(parents=True)
            for file in sorted((PHOTOS / part / kind).iterdir())[:number]:
                shutil.copy(file, target / part / kind)


@pytest.fixture
def classes(tmp_path, monkeypatch):
    """A working directory with everything that the commands refer to; the classes there."""
    timm_reference.import_timm()
    monkeypatch.chdir(tmp_path)
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (text,) = blocks(PAGE, 'python')
    assert 'batch_size=32' in text
    text = text.replace('input_size=160', 'input_size=32').replace('batch_size=32', 'batch_size=8')
    Path('clothing.py').write_text(text)
    if PHOTOS.is_dir():
        copy_photos(tmp_path / 'data/clothing')
        return KINDS
    class_folders.write_images(tmp_path / 'data/clothing')
    return tuple(class_folders.COLOURS)


def run(words, monkeypatch, capfd, more=()):
    """Run a command of the page in this process, with the checkpoint of a short training."""
    if words[:2] == ['bash', 'tools/dist_train.sh']:
        words = ['python', 'tools/train.py', words[2], *words[4:]]
    words = [word.replace('epoch_20', 'epoch_1') for word in words]
    return run_command(words, monkeypatch, capfd, list(more))


def test_from_archives_to_a_detector(classes, monkeypatch, capfd, quick_runner):
    Path('data/imagenet').mkdir()
    for part in ('train', 'val'):
        with tarfile.open(f'data/imagenet/{part}.tar', 'w') as archive:
            archive.add(f'data/clothing/{part}', '.')
    page = commands(PAGE)
    start = next(i for i, words in enumerate(page) if words[1] == 'tools/dist_train.sh')
    train, resume, report, detector, other = page[start : start + 5]
    small = [
        'model.head.num_classes=3',
        *(f'{part}_dataloader.batch_size=8' for part in ('train', 'val')),
        *(f'{part}_dataloader.dataset.transform.input_size=32' for part in ('train', 'val')),
    ]
    assert 'top1' in run(train, monkeypatch, capfd, ['--cfg-options', *short(), *small])
    said = run(resume, monkeypatch, capfd, ['--cfg-options', *short(2), *small])
    assert 'resumed epoch: 1' in said
    assert report[1] == 'tools/report.py'  # it is run below
    for words in (detector, other):
        options = dict(word.split('=') for word in words if word.startswith('model.'))
        backbone = load_config(words[2], options).model.backbone
        assert backbone.init_cfg.type == 'Pretrained'
        if words is detector:
            init_default_scope('mmdet')
            backbone.init_cfg.checkpoint = backbone.init_cfg.checkpoint.replace('300', '2')
            MODELS.build(backbone).init_weights()
            trained = (
                'tensors from the lightvit_mm layout of work_dirs/edgevit_xxs_in1k/epoch_2.pth'
            )
            assert f'249/249 {trained}; not part' in capfd.readouterr().out


def test_own_classes_and_a_detector(classes, monkeypatch, capfd, quick_runner):
    page = commands(PAGE)
    start = next(i for i, words in enumerate(page) if words[1] == 'tools/check_data.py')
    check, train, test, predict, report, make_shapes, detector = page[start : start + 7]
    assert '0 errors, 0 warnings' in run(check, monkeypatch, capfd)
    said = run(train, monkeypatch, capfd, ['--cfg-options', *short()])
    assert f'3 classes: {", ".join(classes)}' in said
    assert 'top1' in said
    assert 'top1' in run(test, monkeypatch, capfd)
    run(predict, monkeypatch, capfd)
    found = json.loads(Path('clothes/predictions.json').read_text())
    assert len(found['images']) == 12
    assert {guess['class'] for image in found['images'] for guess in image['classes']} == {*classes}
    assert '12 validation images' in run(report, monkeypatch, capfd)
    run(make_shapes, monkeypatch, capfd, ['--train', '4', '--val', '2', '--size', '64'])
    said = run(detector, monkeypatch, capfd, short())
    assert 'EdgeViT xxs: 244/244 tensors from the lightvit_mm layout of work_dirs/clothing' in said
    assert Path('work_dirs/retinanet_edgevit_xxs_shapes/epoch_1.pth').is_file()
