"""The report of real runs at every stage, also in a browser."""

import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.chromium import WIDTHS, show
from helpers.repository import REPOSITORY
from helpers.small_data import segmentor_config, tiny_detector
from PIL import Image

from lightvit_mm.data.config import MissingDataError
from lightvit_mm.engine.running import train
from lightvit_mm.errors import UserError
from lightvit_mm.reporting.report import write_report
from lightvit_mm.reporting.validating import validate


@pytest.fixture(scope='module')
def run(small_coco, tmp_path_factory):
    """The work dir of a detector that was trained for two epochs of one step."""
    config = tiny_detector(small_coco, tmp_path_factory.mktemp('run'))
    config.model.test_cfg.score_thr = 0.0
    config.train_cfg.update(max_epochs=2, val_interval=1)
    config.train_dataloader.batch_size = 2
    config.default_hooks.checkpoint.interval = 1
    config.default_hooks.logger.interval = 1
    return config.work_dir, train(config)


@pytest.fixture(scope='module')
def page(run):
    work_dir, _ = run
    said = write_report(work_dir)
    assert said.startswith('epoch 2, iteration 1 of 1, 2 validation images: report in ')
    return Path(work_dir) / 'report.html'


def test_page_is_self_contained(page):
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!data:image/|#)', text)
    assert not re.search(r'url\(|@import|<script|<link', text)


def test_page_has_every_part(page):
    text = page.read_text()
    for part in (
        'Loss by iteration', 'Learning rate by iteration', 'AP of boxes by iteration',
        'Time by iteration', 'Memory by iteration', 'Validations, in percent', 'AP small',
        'Confusion matrix', 'The 1 best images', 'The 1 worst images', 'MMEngine',
        'type=&#39;RetinaNet&#39;', 'epoch_2.pth', 'State</th><td>finished',
    ):  # fmt: skip
        assert part in text, part
    assert 'class="missing"' not in text
    # Two charts by size and all classes with their two objects each.
    assert '<th scope="row">all</th><td>8</td>' in text
    assert (
        len(re.findall(r'<th scope="row">(?:disk|square|triangle|star)</th><td>2</td>', text)) == 4
    )
    assert text.count('alt="ground truth of') == text.count('alt="prediction for') == 2


def test_page_in_a_browser(page, tmp_path):
    layouts, console = show(page, tmp_path)
    assert not console
    assert [layout.width for layout in layouts] == list(WIDTHS)
    for layout in layouts:
        assert layout.content_width == layout.width
        assert layout.images == layout.loaded == layout.described > 8


def test_figures_equal_those_of_the_run(run, small_coco, tmp_path):
    work_dir, runner = run
    config = tiny_detector(small_coco, tmp_path)
    config.model.test_cfg.score_thr = 0.0
    validated = validate(config, f'{work_dir}/epoch_2.pth')
    logged = runner.message_hub.get_scalar('val/coco/bbox_mAP').current()
    assert validated.precision['bbox'][:, 1].mean() / 100 == pytest.approx(logged, abs=5e-4)
    assert validated.confusion[:-1].sum() == 8


@pytest.fixture
def begun(run, tmp_path):
    """A copy of the run."""
    # last_checkpoint has the path of the original run.
    others = shutil.ignore_patterns('last_checkpoint', 'report.html')
    return shutil.copytree(run[0], tmp_path / 'begun', ignore=others)


def test_run_without_checkpoint_and_with_half_a_line(begun):
    for file in begun.glob('*.pth'):
        file.unlink()
    (scalars,) = begun.glob('*/vis_data/scalars.json')
    first = scalars.read_text().splitlines()[0]
    scalars.write_text(f'{first}\n{first[: len(first) // 2]}')
    (log,) = begun.glob('*/*.log')
    log.write_text(log.read_text().split('Saving checkpoint')[0])
    said = write_report(begun)
    text = (begun / 'report.html').read_text()
    assert said.startswith('epoch 1, iteration 1 of 1: report')
    assert text.count('class="missing"') == 2
    assert 'No validation yet' in text and 'they need the first complete checkpoint' in text
    assert 'not finished' in text and 'Loss by iteration' in text


def test_run_that_has_logged_nothing(begun):
    for file in [*begun.glob('*.pth'), *begun.glob('*/vis_data/scalars.json')]:
        file.unlink()
    write_report(begun, begun / 'elsewhere/page.html')
    text = (begun / 'elsewhere/page.html').read_text()
    assert text.count('class="missing"') == 3
    assert 'No loss yet' in text and 'Nothing to plot yet.' in text


def test_data_that_are_not_there(begun):
    with pytest.raises(MissingDataError, match='--data-root'):
        write_report(begun, data_root='nowhere')
    assert not (begun / 'report.html').exists()
    write_report(begun, data_root='nowhere', with_predictions=False)
    assert 'because of --no-predictions' in (begun / 'report.html').read_text()


def test_names_are_text_and_no_markup(begun):
    kept = next(begun.glob('*.py'))
    kept.rename(begun / '<script>alert(1)<.py')
    write_report(begun, with_predictions=False)
    assert '<script>' not in (begun / 'report.html').read_text()


def test_a_page_replaces_a_page_and_nothing_else(begun, tmp_path, monkeypatch):
    for _ in range(2):
        write_report(begun, with_predictions=False)
    monkeypatch.setattr('lightvit_mm.reporting.report.load_config', pytest.fail)
    (log,) = begun.glob('*/*.log')
    (tmp_path / 'other.html').write_text('<html><title>other</title>')
    before = sorted(tmp_path.iterdir()), log.read_text()
    for out, said in (
        (begun, 'is a folder'),
        (log, 'nothing shows that this tool wrote it'),
        (tmp_path / 'other.html', 'nothing shows that this tool wrote it'),
        (log / 'page.html', 'cannot be written'),
    ):
        with pytest.raises(UserError, match=said):
            write_report(begun, out, with_predictions=False)
    assert (sorted(tmp_path.iterdir()), log.read_text()) == before


def test_segmentor(tmp_path):
    rng = np.random.default_rng(0)
    for folder, shape, high in (('images', (48, 64, 3), 256), ('labels', (48, 64), 5)):
        (tmp_path / folder).mkdir()
        for name in 'ab':
            pixels = rng.integers(0, high, shape).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f'{name}.png')
    config = segmentor_config(tmp_path)
    config.work_dir = str(tmp_path / 'work')
    config.train_cfg.update(max_iters=1, val_interval=1)
    config.default_hooks.checkpoint.interval = 1
    config.default_hooks.logger.interval = 1
    for part in ('train', 'val', 'test'):
        loader = config[f'{part}_dataloader']
        loader.update(num_workers=0, persistent_workers=False, batch_size=1)
        loader.dataset.pipeline.append({'type': 'PackSegInputs'})
    config.train_dataloader.batch_size = 2
    runner = train(config)
    assert ', 2 validation images: report in' in write_report(config.work_dir)
    text = (tmp_path / 'work/report.html').read_text()
    assert 'IoU and accuracy by iteration' in text
    miou = runner.message_hub.get_scalar('val/mIoU').current()
    assert f'<th scope="row">mean</th><td>-</td><td>{miou:.1f}</td>' in text
    assert text.count('alt="ground truth of') == 2


def test_tool(begun, tmp_path, monkeypatch, capsys):
    page = tmp_path / 'page.html'
    tool = str(REPOSITORY / 'tools/report.py')
    monkeypatch.setattr('sys.argv', [tool, str(begun), '--out', str(page), '--no-predictions'])
    runpy.run_path(tool, run_name='__main__')
    assert f'report in {page} (' in capsys.readouterr().out
    monkeypatch.setattr('sys.argv', [tool, str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(tool, run_name='__main__')
    assert ended.value.code == 2
    assert f'no training was started in {tmp_path}' in capsys.readouterr().err


def test_device_that_is_not_there(begun):
    with pytest.raises(UserError, match=r'--device gpu: .*; cpu always works'):
        write_report(begun, device='gpu')
