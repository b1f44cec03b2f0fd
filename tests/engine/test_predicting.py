"""Predictions: files that end early, broken images, folders in use."""

import errno
import json
import shutil

import mmcv
import pytest
from helpers import small_data
from mmdet.models import RetinaNet
from PIL import Image

from lightvit_mm.engine import predicting
from lightvit_mm.engine.predicting import find_images, predict
from lightvit_mm.engine.results import Detections
from lightvit_mm.errors import UserError


@pytest.fixture
def checkpoint(small_coco, tmp_path):
    """The config of a tiny detector, and a checkpoint of it."""
    config = small_data.tiny_detector(small_coco, tmp_path)
    return config, small_data.save_checkpoint(config, tmp_path / 'epoch_1.pth')


@pytest.fixture
def photos(small_coco, tmp_path):
    """a.png and b.png."""
    return shutil.copytree(small_coco / 'images/val', tmp_path / 'photos')


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob('*') if file.is_file()}


def test_an_interrupted_run_keeps_what_it_wrote(checkpoint, photos, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    arguments = (*checkpoint, str(photos), str(out))
    done = predict(*arguments)
    whole = done.json_file.read_text()
    assert len(json.loads(whole)['images']) == len(done.pictures) == 2
    assert not (out / 'predictions.json.part').exists()
    read = mmcv.imread

    def interrupted(file, **options):
        if file.name == 'b.png':
            raise KeyboardInterrupt
        return read(file, **options)

    monkeypatch.setattr(mmcv, 'imread', interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(*arguments)
    assert done.json_file.read_text() == whole
    assert (out / 'predictions.json.part').read_text() == whole[: whole.index(',\n{"file"')]
    # The first run of a folder may be the one that was interrupted.
    done.json_file.unlink()
    monkeypatch.setattr(mmcv, 'imread', read)
    assert len(predict(*arguments).pictures) == 2


def test_nothing_is_drawn_over(checkpoint, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predicting, 'Predictor', lambda *_, **__: pytest.fail('the work began'))
    other = shutil.copytree(photos, tmp_path / 'other')
    (tmp_path / 'link').symlink_to(photos)
    (tmp_path / 'strange').mkdir()
    (tmp_path / 'strange/predictions.json').write_text('[1]')
    (tmp_path / 'deep/photos').mkdir(parents=True)
    shutil.copy(photos / 'a.png', tmp_path / 'deep/photos')
    data = str(checkpoint[0].test_dataloader.dataset.data_root)
    before = contents(tmp_path)
    for source, out, said in (
        ('photos', 'photos', 'photos is an input'),
        ('photos', 'link', 'link is an input'),
        ('photos/', './other/../photos/', 'is an input'),
        ('photos', 'photos/drawn', 'is inside photos'),
        ('photos', 'link/drawn', 'is inside photos'),
        ('photos/a.png', 'photos', 'holds images that this tool did not write, a.png'),
        ('photos/*.png', 'photos', 'holds images that this tool did not write, a.png'),
        ('photos', str(other), 'holds images that this tool did not write, a.png'),
        ('photos', f'{data}/images/val', 'is an input'),
        ('photos', f'{data}/images/val/drawn', 'is inside'),
        ('photos', 'photos/a.png', 'a.png is a file: give a folder'),
        ('photos', 'epoch_1.pth', 'epoch_1.pth is a file: give a folder'),
        ('photos', 'epoch_1.pth/below', 'cannot be written'),
        ('photos', 'strange', 'predictions.json exists, and nothing shows that this tool wrote it'),
        ('*/*.png', 'deep', 'deep/photos/a.png would be replaced'),
    ):
        with pytest.raises(UserError) as caught:
            predict(*checkpoint, source, out)
        assert said in str(caught.value), (source, out)
        assert contents(tmp_path) == before, (source, out)


def test_three_broken_images_among_many(checkpoint, photos, tmp_path, monkeypatch):
    whole = photos.joinpath('a.png').read_bytes()
    for number in range(1, 498):
        (photos / f'{number:03}.png').write_bytes(whole)
    Image.fromarray(small_data.pixels()).save(photos / 'cut.jpg')
    cut = photos.joinpath('cut.jpg').read_bytes()
    (photos / 'cut.jpg').write_bytes(cut[: len(cut) // 2])
    (photos / 'empty.png').touch()
    (photos / 'text.png').write_text('not an image')
    infer, samples = RetinaNet.test_step, []

    def infer_once(model, data):
        samples.append(samples[0] if samples else infer(model, data)[0])
        return samples[:1]

    monkeypatch.setattr(RetinaNet, 'test_step', infer_once)
    monkeypatch.setattr(Detections, 'draw', lambda *_: None)
    made = predict(*checkpoint, str(photos), str(tmp_path / 'out'))
    assert len(made.pictures) == len(samples) == 499
    assert {
        file.rsplit('/', 1)[1]: reason.split(' (')[0] for file, reason in made.failed.items()
    } == {
        'cut.jpg': 'image file damaged or cut short image file is truncated',
        'empty.png': 'image file empty 0 bytes',
        'text.png': 'image that cannot be decoded the loader returned nothing',
    }
    assert json.loads(made.json_file.read_text())['failed'] == made.failed


def test_a_full_disk_names_the_picture(checkpoint, photos, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, 'No space left on device', str(path))

    monkeypatch.setattr('lightvit_mm.engine.results.write_whole', full)
    out = tmp_path / 'out'
    with pytest.raises(OSError, match='No space left') as caught:
        predict(*checkpoint, str(photos), str(out))
    assert caught.value.filename == str(out / 'a.png')
    assert [file.name for file in out.iterdir()] == ['predictions.json.part']


def test_no_two_images_share_a_label_map(tmp_path):
    files = [tmp_path / name for name in ('a.jpg', 'a.png', 'b.jpg', 'c.raw')]
    planned = predicting._plan(files, tmp_path, tmp_path / 'out', labelled=True)
    assert [[str(p.relative_to(tmp_path / 'out')) for p in planned[file]] for file in files] == [
        ['a.jpg', 'labels/a.jpg.png'],
        ['a.png', 'labels/a.png.png'],
        ['b.jpg', 'labels/b.png'],
        ['c.raw.png', 'labels/c.png'],
    ]
    files = [tmp_path / 'labels/a.png', tmp_path / 'a.png']
    with pytest.raises(UserError, match='something else would be written to'):
        predicting._plan(files, tmp_path, tmp_path / 'out', labelled=True)
    assert predicting._plan(files, tmp_path, tmp_path / 'out', labelled=False)


def test_images_without_a_name():
    with pytest.raises(UserError, match='empty name'):
        find_images('')


def test_files_left_out_of_a_folder_are_counted(tmp_path, mm_log):
    small_data.write_images(tmp_path, ['a.png'])
    folder = tmp_path / 'images/train'
    assert find_images(str(folder)) == (folder, [folder / 'a.png'])
    assert not mm_log
    for name in ('b.gif', 'c.GIF', 'd.avif', 'e'):
        (folder / name).write_bytes(b'')
    assert find_images(str(folder))[1] == [folder / 'a.png']
    assert mm_log == [
        f'{folder}: left out 4 files, e.g. {folder}/b.gif (2 .gif, 1 .avif, 1 no suffix); of a '
        'folder, .bmp .jpeg .jpg .png .tif .tiff .webp are read'
    ]
    (folder / 'a.png').unlink()
    with pytest.raises(UserError, match=r'no image in .*b\.gif \(2 \.gif, 1 \.avif'):
        find_images(str(folder))
    # By name or by pattern, every file is tried.
    assert find_images(str(folder / 'b.gif'))[1] == [folder / 'b.gif']
    assert find_images(str(folder / '*.gif'))[1] == [folder / 'b.gif']
