"""The commands of docs/pretrain.md for one's own classes, on a few small pictures."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from helpers import class_folders, timm_reference
from helpers.doc_pages import blocks, commands
from helpers.repository import REPOSITORY

pytestmark = pytest.mark.slow

PAGE = REPOSITORY / 'docs/pretrain.md'
LOADERS = [
    f'{part}_dataloader.{option}'
    for part in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]
SHORT = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', *LOADERS]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A working directory with everything that the commands refer to."""
    timm_reference.import_timm()
    monkeypatch.chdir(tmp_path)
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    class_folders.write_images(tmp_path / 'data/clothing')
    (text,) = blocks(PAGE, 'python')
    assert 'batch_size=32' in text
    text = text.replace('input_size=160', 'input_size=32').replace('batch_size=32', 'batch_size=8')
    Path('clothing.py').write_text(text)


def run(words, monkeypatch, capfd, more=()):
    arguments = [word.replace('epoch_20', 'epoch_1') for word in words[2:]] + list(more)
    monkeypatch.setattr(sys, 'argv', [words[1], *arguments])
    status = 0
    try:
        runpy.run_path(words[1], run_name='__main__')
    except SystemExit as end:
        status = end.code
    out, err = capfd.readouterr()
    assert not status, out + err
    return out + err


def test_own_classes_and_a_detector(checkout, monkeypatch, capfd, quick_runner):
    page = commands(PAGE)
    start = next(i for i, words in enumerate(page) if words[1] == 'tools/check_data.py')
    check, train, test, predict, report, make_shapes, detector = page[start:]
    assert '0 errors, 0 warnings, 0 notes' in run(check, monkeypatch, capfd)
    said = run(train, monkeypatch, capfd, ['--cfg-options', *SHORT])
    assert '3 classes: blue, green, red' in said
    assert 'top1' in said
    assert 'top1' in run(test, monkeypatch, capfd)
    run(predict, monkeypatch, capfd)
    found = json.loads(Path('clothes/predictions.json').read_text())
    assert len(found['images']) == 12
    assert '12 validation images' in run(report, monkeypatch, capfd)
    run(make_shapes, monkeypatch, capfd, ['--train', '4', '--val', '2', '--size', '64'])
    said = run(detector, monkeypatch, capfd, SHORT)
    assert 'EdgeViT xxs: 244/244 tensors from the lightvit_mm layout of work_dirs/clothing' in said
    assert Path('work_dirs/retinanet_edgevit_xxs_shapes/epoch_1.pth').is_file()
