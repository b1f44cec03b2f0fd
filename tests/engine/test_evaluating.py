"""What tools/test.py writes, and what it does not write over."""

import errno
import shutil

import numpy as np
import pytest
from helpers import small_data
from PIL import Image

from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.running import test as evaluate
from lightvit_mm.errors import UserError
from lightvit_mm.files import write_whole

pytestmark = pytest.mark.usefixtures('quick_runner')


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob('*') if file.is_file()}


def no_space(path, content):
    if str(path).endswith('.bbox.json'):  # mmdet's own, in the folder for temporary files
        return write_whole(path, content)
    raise OSError(errno.ENOSPC, 'No space left on device', str(path))


def test_nothing_is_written_over(small_coco, tmp_path):
    config = small_data.tiny_detector(small_coco, tmp_path)
    checkpoint = tmp_path / 'weights.pkl'
    checkpoint.write_text('weights')
    (tmp_path / 'photos').mkdir()
    Image.fromarray(small_data.pixels()).save(tmp_path / 'photos/a.png')
    (tmp_path / 'data').symlink_to(small_coco)
    before = contents(tmp_path), contents(small_coco)
    for out, show_dir, said in (
        (None, small_coco / 'images/val', 'val is an input'),
        (None, tmp_path / 'data/images/val', 'val is an input'),
        (None, small_coco / 'images/train/drawn', 'is inside'),
        (None, tmp_path / 'photos', 'holds images that this tool did not write, a.png'),
        (None, checkpoint, 'is a file: give a folder'),
        (None, checkpoint / 'below', 'cannot be written'),
        (checkpoint, None, 'is an input'),
        (tmp_path / 'photos/a.png', None, 'predictions of a detector go into a .pkl file'),
        (tmp_path, None, 'predictions of a detector go into a .pkl file'),
        (checkpoint / 'a.pkl', None, 'cannot be written'),
    ):
        with pytest.raises(UserError) as caught:
            evaluate(config, str(checkpoint), out and str(out), show_dir and str(show_dir))
        assert said in str(caught.value), (out, show_dir)
        assert (contents(tmp_path), contents(small_coco)) == before, (out, show_dir)
    (tmp_path / 'other.pkl').write_text('something else')
    with pytest.raises(UserError, match='nothing shows that this tool wrote it'):
        evaluate(config, str(checkpoint), str(tmp_path / 'other.pkl'))


def test_a_detector_twice_and_on_a_full_disk(small_coco, tmp_path, monkeypatch):
    checkpoint = None
    for _ in range(2):
        config = small_data.tiny_detector(small_coco, tmp_path)
        checkpoint = checkpoint or small_data.save_checkpoint(config, tmp_path / 'epoch_1.pth')
        evaluate(config, checkpoint, str(tmp_path / 'kept.pkl'), str(tmp_path / 'shown'))
    assert {file.name for file in (tmp_path / 'shown').glob('*.png')} == {'a.png', 'b.png'}
    before = (tmp_path / 'kept.pkl').read_bytes()
    monkeypatch.setattr('lightvit_mm.engine.whole_files.write_whole', no_space)
    with pytest.raises(OSError, match='No space left') as caught:
        evaluate(
            small_data.tiny_detector(small_coco, tmp_path), checkpoint, str(tmp_path / 'kept.pkl')
        )
    assert caught.value.filename == str(tmp_path / 'kept.pkl')
    assert (tmp_path / 'kept.pkl').read_bytes() == before


@pytest.fixture
def segmentor(tmp_path):
    """A function that returns a new config, and a checkpoint."""
    for folder, content in (
        ('images', small_data.pixels()),
        ('labels', np.full(small_data.SIZE[::-1], 3, np.uint8)),
    ):
        (tmp_path / folder).mkdir()
        for name in 'ab':
            Image.fromarray(content).save(tmp_path / folder / f'{name}.png')

    def make():
        config = small_data.segmentor_config(tmp_path)
        config.work_dir = str(tmp_path / 'work')
        config.model.backbone.arch = small_data.ARCH
        config.model.neck.update(in_channels=[8] * 4, out_channels=8)
        config.model.decode_head.update(in_channels=[8] * 4, channels=8)
        config.default_hooks.visualization.interval = 1
        loader = config.test_dataloader
        loader.update(num_workers=0, persistent_workers=False, batch_size=1)
        loader.dataset.pipeline.append({'type': 'PackSegInputs'})
        return config

    return make, small_data.save_checkpoint(make(), tmp_path / 'iter_1.pth')


def test_a_segmentor_twice_and_on_a_full_disk(segmentor, tmp_path, monkeypatch):
    make, checkpoint = segmentor
    out, shown = tmp_path / 'out', tmp_path / 'shown'
    for folder in ('images', 'labels', 'labels/new'):
        for places in ((str(tmp_path / folder), None), (None, str(tmp_path / folder))):
            with pytest.raises(UserError, match=r'is an input|is inside'):
                evaluate(make(), checkpoint, *places)
    for _ in range(2):
        evaluate(make(), checkpoint, str(out), str(shown))
    names = ['.written_by_lightvit_mm', 'a.png', 'b.png']
    assert sorted(file.name for file in out.iterdir()) == names
    pictures = {file.name for file in shown.rglob('*.png')}
    assert len(pictures) == 2
    before, save = contents(out), Image.Image.save

    def full(image, file, *arguments, **options):
        if 'b.png' in str(file):
            write_whole(file, 'half')
            raise OSError(errno.ENOSPC, 'No space left on device')
        save(image, file, *arguments, **options)

    monkeypatch.setattr(Image.Image, 'save', full)
    with pytest.raises(OSError, match='No space left') as caught:
        evaluate(make(), checkpoint, str(out))
    assert caught.value.filename == str(out)
    assert contents(out) == before
    monkeypatch.setattr('lightvit_mm.engine.whole_files.write_whole', no_space)
    with pytest.raises(OSError, match='No space left') as caught:
        evaluate(make(), checkpoint, None, str(shown))
    assert caught.value.filename.rsplit('/', 1)[1] in pictures


def test_label_maps_of_one_name(segmentor, tmp_path):
    make, checkpoint = segmentor
    for folder in ('images', 'labels'):
        (tmp_path / folder / 'deep').mkdir()
        shutil.copy(tmp_path / folder / 'a.png', tmp_path / folder / 'deep')
    with pytest.raises(UserError, match=r'a\.png have one name, and would have one label map'):
        evaluate(make(), checkpoint, str(tmp_path / 'out'))
    assert not list((tmp_path / 'out').rglob('*.png'))


def test_the_config_of_a_training_stays(small_coco, tmp_path):
    config = small_data.tiny_detector(small_coco, tmp_path)
    checkpoint = small_data.save_checkpoint(config, tmp_path / 'epoch_1.pth')
    (tmp_path / 'work').mkdir()
    saved = tmp_path / 'work/run.py'
    config.dump(saved)
    before = saved.read_text()
    # Test-time augmentation wraps the model.
    evaluate(load_config(str(saved)), checkpoint, tta=True)
    assert saved.read_text() == before
