"""Every command of docs/segment.md, on a few small pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import small_data
from helpers.doc_pages import blocks, commands
from helpers.doc_runs import run_command, save_detector_of_the_quickstart
from helpers.repository import REPOSITORY
from PIL import Image

from lightvit_mm.data.checking import check_before_run
from lightvit_mm.data.own import use_own_data
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.model_checks import check_channels

pytestmark = pytest.mark.slow

PAGE = REPOSITORY / 'docs/segment.md'
(CLASSES,) = blocks(PAGE, 'json')
FOLDERS = [
    tuple(f'data/aerial/{kind}/{part}' for kind in ('images', 'annotations'))
    for part in ('train', 'val')
]
SHORT = [
    'train_cfg.max_iters={iterations}',
    'train_cfg.val_interval=1',
    'train_dataloader.batch_size=2',
    'model.data_preprocessor.size=(64,64)',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.logger.interval=1',
]


def write_pairs(images, label_maps):
    """Pictures whose halves have the classes 0 and 1, and one with every class."""
    for folder in (images, label_maps):
        Path(folder, 'north').mkdir(parents=True)
    labels = np.arange(small_data.SIZE[0]) * 2 // small_data.SIZE[0]
    labels = np.tile(labels, (small_data.SIZE[1], 1)).astype(np.uint8)
    for name, more in (('a', 0), ('north/b', 2), ('north/c', 3)):
        Image.fromarray(small_data.pixels()).save(f'{images}/{name}.jpg')
        Image.fromarray(labels + more).save(f'{label_maps}/{name}.png')


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A working directory with everything that the commands refer to."""
    monkeypatch.chdir(tmp_path)
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    for folders in FOLDERS:
        write_pairs(*folders)
    Path('data/aerial/classes.json').write_text(CLASSES)
    Path('data/masks').mkdir()
    palette = np.array(json.loads(CLASSES)['palette'], dtype=np.uint8)
    Image.fromarray(palette[small_data.pixels(channels=1) % 5]).save('data/masks/a.png')
    text = blocks(PAGE, 'python')[0]
    assert 'scale=(512, 512)' in text
    text = text.replace('scale=(512, 512)', 'scale=(64, 64)').replace('(256, 256)', '(64, 64)')
    Path('aerial.py').write_text(text)
    return tmp_path


def run(words, monkeypatch, capfd, iterations=2, more=()):
    """Run a command of the page with a short schedule and small pictures."""
    more = list(more)
    if words[1] == 'tools/train.py':
        more += ['--cfg-options', *(option.format(iterations=iterations) for option in SHORT)]
    words = ['64' if word == '512' else word for word in words]
    return run_command(words, monkeypatch, capfd, more)


def test_every_command(checkout, monkeypatch, capfd, quick_runner):
    save_detector_of_the_quickstart(checkout / 'work_dirs/quickstart/epoch_4.pth')
    quickstart, environment, *page = commands(PAGE)
    # The first two commands are not run: the checkpoint above replaces their results.
    assert quickstart == ['bash', 'tools/quickstart.sh']
    assert environment == ['source', '.venv/bin/activate']
    convert, check, train, resume, test, predict, report, install, export, *exported = page
    assert install[:2] == ['pip', 'install']
    assert '1 label maps in data/labels' in run(convert, monkeypatch, capfd)
    labels = np.asarray(Image.open('data/labels/a.png'))
    assert (labels == small_data.pixels(channels=1) % 5).all()
    assert '0 errors, 0 warnings' in run(check, monkeypatch, capfd)
    said = run(train, monkeypatch, capfd, 1)
    assert 'label 0 is building (reduce_zero_label=False)' in said
    assert 'model.decode_head.num_classes 150 -> 5' in said
    assert '27 tensors keep their initial values (27 of decode_head: missing in the file)' in said
    assert 'EdgeViT xxs: 244/244 tensors' in said
    assert 'decay_rate=0.8' in said
    said = run(resume, monkeypatch, capfd, 2)
    assert 'resumed' in said
    saved = Path('work_dirs/aerial/aerial.py').read_text()
    (best,) = Path('work_dirs/aerial').glob('best_mIoU_iter_*.pth')
    meta = torch.load(best, weights_only=False)['meta']['dataset_meta']
    assert list(meta['classes']) == json.loads(CLASSES)['classes']
    assert 'mIoU:' in run(test, monkeypatch, capfd)
    run(predict, monkeypatch, capfd)
    found = json.loads(Path('aerial_pictures/predictions.json').read_text())
    assert len(found['images']) == 3
    assert Path('aerial_pictures/north/b.jpg').is_file()
    assert Path('aerial_pictures/labels/north/b.png').is_file()
    run(report, monkeypatch, capfd)
    assert 'vegetation' in Path('work_dirs/aerial/report.html').read_text()
    # After the report: in one process, mmengine saves this config in the folder of the training.
    options = [*FOLDERS[0], '--classes-from', 'data/aerial/classes.json', '--tta']
    assert 'mIoU:' in run(test, monkeypatch, capfd, more=['--val-data', *options])
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason='export needs it: pip install -e ".[onnx]"')
    assert 'layers in 8 bits' in run(export, monkeypatch, capfd)
    assert [words[3] for words in exported] == ['aerial.onnx', 'aerial.int8.onnx']
    for words in exported:
        assert 'mIoU:' in run(words, monkeypatch, capfd)
    # No evaluation has changed it.
    assert Path('work_dirs/aerial/aerial.py').read_text() == saved


@pytest.mark.parametrize(
    'base', ['upernet_repvit_m0_9', 'segformer_efficientvit_m0', 'lraspp_repvit_m0_6']
)
def test_other_heads(checkout, base):
    from mmseg.registry import MODELS

    text = Path('aerial.py').read_text()
    for old, new in (('segformer_edgevit_xxs', base), (', backbone=backbone', '')):
        assert old in text
        text = text.replace(old, new)
    Path('other.py').write_text(text)
    config = load_config('other.py')
    use_own_data(config, *FOLDERS, 'data/aerial/classes.json')
    check_before_run(config, ('train', 'val', 'test'))
    config.model.backbone.init_cfg = None
    model = MODELS.build(config.model)
    check_channels(model, config.model)
    assert model.decode_head.num_classes == 5


def test_what_the_page_says_of_the_config(checkout):
    config = load_config('aerial.py')
    assert config.param_scheduler[-1].end == config.train_cfg.max_iters
