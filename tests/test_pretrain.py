"""The commands of docs/pretrain.md for one's own classes, on a few small pictures."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import class_folders, timm_reference
from helpers.doc_pages import blocks, commands
from helpers.doc_runs import run_command
from helpers.repository import REPOSITORY

pytestmark = pytest.mark.slow

PAGE = REPOSITORY / 'docs/pretrain.md'
LOADERS = [
    f'{part}_dataloader.{option}'
    for part in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]
SHORT = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', *LOADERS]
PHOTOS = REPOSITORY / 'data/clothing'  # where the page has them
KINDS = ('dress', 'hat', 'pants')


def copy_photos(target):
    """Eight and four photos of three classes."""
    for part, number in (('train', 8), ('val', 4)):
        for kind in KINDS:
            (target / part / kind).mkdir(parents=True)
            for file in sorted((PHOTOS / part / kind).iterdir())[:number]:
                shutil.copy(file, target / part / kind)


@pytest.fixture(params=['colours', 'photos'])
def classes(request, tmp_path, monkeypatch):
    """A working directory with everything that the commands refer to; the classes there."""
    timm_reference.import_timm()
    if request.param == 'photos' and not PHOTOS.is_dir():
        pytest.skip('no data/clothing with the photos that docs/pretrain.md names')
    monkeypatch.chdir(tmp_path)
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    if request.param == 'photos':
        copy_photos(tmp_path / 'data/clothing')
    else:
        class_folders.write_images(tmp_path / 'data/clothing')
    (text,) = blocks(PAGE, 'python')
    assert 'batch_size=32' in text
    text = text.replace('input_size=160', 'input_size=32').replace('batch_size=32', 'batch_size=8')
    Path('clothing.py').write_text(text)
    return KINDS if request.param == 'photos' else tuple(class_folders.COLOURS)


def run(words, monkeypatch, capfd, more=()):
    """Run a command of the page, with the checkpoint of a training of one epoch."""
    words = [word.replace('epoch_20', 'epoch_1') for word in words]
    return run_command(words, monkeypatch, capfd, list(more))


def test_own_classes_and_a_detector(classes, monkeypatch, capfd, quick_runner):
    page = commands(PAGE)
    start = next(i for i, words in enumerate(page) if words[1] == 'tools/check_data.py')
    check, train, test, predict, report, make_shapes, detector = page[start : start + 7]
    assert '0 errors, 0 warnings' in run(check, monkeypatch, capfd)
    said = run(train, monkeypatch, capfd, ['--cfg-options', *SHORT])
    assert f'3 classes: {", ".join(classes)}' in said
    assert 'top1' in said
    assert 'top1' in run(test, monkeypatch, capfd)
    run(predict, monkeypatch, capfd)
    found = json.loads(Path('clothes/predictions.json').read_text())
    assert len(found['images']) == 12
    assert {guess['class'] for image in found['images'] for guess in image['classes']} == {*classes}
    assert '12 validation images' in run(report, monkeypatch, capfd)
    run(make_shapes, monkeypatch, capfd, ['--train', '4', '--val', '2', '--size', '64'])
    said = run(detector, monkeypatch, capfd, SHORT)
    assert 'EdgeViT xxs: 244/244 tensors from the lightvit_mm layout of work_dirs/clothing' in said
    assert Path('work_dirs/retinanet_edgevit_xxs_shapes/epoch_1.pth').is_file()
