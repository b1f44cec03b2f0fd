"""Label maps out of colour-coded masks."""

import numpy as np
import pytest
from helpers.repository import REPOSITORY, run_tool
from PIL import Image

from lightvit_mm.data.masks import convert_masks
from lightvit_mm.errors import UserError

CLASSES = 'land 132 41 246\nwater 0 0 255\n'
COLOURS = np.array([[132, 41, 246], [0, 0, 255], [0, 0, 0]], dtype=np.uint8)
LABELS = np.arange(48).reshape(6, 8) % 2


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'masks/north').mkdir(parents=True)
    (tmp_path / 'classes.txt').write_text(CLASSES)
    Image.fromarray(COLOURS[LABELS]).save('masks/a.png')
    Image.fromarray(COLOURS[1 - LABELS]).convert('RGBA').save('masks/north/b.tif')
    return tmp_path


def labels_of(file):
    with Image.open(file) as image:
        assert image.mode == 'P'
        return np.asarray(image)


def test_every_mask_gets_a_label_map(root):
    assert convert_masks('masks', 'labels', 'classes.txt') == 2
    assert (labels_of('labels/a.png') == LABELS).all()
    assert (labels_of('labels/north/b.png') == 1 - LABELS).all()
    # Seen as a picture, a label map looks like its mask.
    with Image.open('labels/a.png') as image:
        assert (np.asarray(image.convert('RGB')) == COLOURS[LABELS]).all()
    # The same command again.
    assert convert_masks('masks', 'labels', 'classes.txt') == 2


def test_labels_that_begin_at_one(root):
    (root / 'classes.json').write_text(
        '{"classes": ["land", "water"], "palette": [[132, 41, 246], [0, 0, 255]], '
        '"reduce_zero_label": true}'
    )
    convert_masks('masks', 'labels', 'classes.json')
    assert (labels_of('labels/a.png') == LABELS + 1).all()


def test_grey_masks_of_one_kind_of_object(root):
    for file in root.glob('masks/**/*.*'):
        file.unlink()
    Image.fromarray((255 * LABELS).astype(np.uint8)).save('masks/a.png')
    (root / 'classes.txt').write_text('background 0 0 0\nnucleus 255 255 255\n')
    convert_masks('masks', 'labels', 'classes.txt')
    assert (labels_of('labels/a.png') == LABELS).all()


def test_unknown_colours(root):
    labels = LABELS.copy()
    labels[0, :3] = 2
    Image.fromarray(COLOURS[labels]).save('masks/north/c.png')
    with pytest.raises(UserError, match=r'1 colours are not .*: 0 0 0 \(3 pixels, .*c\.png\)'):
        convert_masks('masks', 'labels', 'classes.txt')
    assert not (root / 'labels').exists()
    for number, options in enumerate(({'ignored': [(0, 0, 0)]}, {'others': True})):
        convert_masks('masks', f'labels{number}', 'classes.txt', **options)
        found = labels_of(f'labels{number}/north/c.png')
        assert (found == np.where(labels == 2, 255, labels)).all()


def test_jpeg_masks_are_explained(root):
    noise = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save('masks/d.jpg')
    with pytest.raises(UserError, match=r'and \d+ more\..*JPEG changes colours'):
        convert_masks('masks', 'labels', 'classes.txt')


def test_what_cannot_be_converted(root):
    with pytest.raises(UserError, match='absent is not a folder'):
        convert_masks('absent', 'labels', 'classes.txt')
    with pytest.raises(UserError, match='inside masks'):
        convert_masks('masks', 'masks/labels', 'classes.txt')
    (root / 'photos').mkdir()
    Image.fromarray(COLOURS[LABELS]).save('photos/mine.png')
    with pytest.raises(UserError, match='holds images that this tool did not write'):
        convert_masks('masks', 'photos', 'classes.txt')
    (root / 'names.txt').write_text('land\nwater\n')
    with pytest.raises(UserError, match=r'names\.txt has names but no colours'):
        convert_masks('masks', 'labels', 'names.txt')
    Image.fromarray(COLOURS[LABELS]).save('masks/a.bmp')
    with pytest.raises(UserError, match='two masks would be written to'):
        convert_masks('masks', 'labels', 'classes.txt')
    (root / 'masks/a.bmp').write_bytes(b'BM')
    (root / 'masks/a.png').unlink()
    with pytest.raises(UserError, match=r'a\.bmp cannot be read'):
        convert_masks('masks', 'labels', 'classes.txt')
    (root / 'empty').mkdir()
    with pytest.raises(UserError, match='empty has no masks'):
        convert_masks('empty', 'labels', 'classes.txt')
    assert not (root / 'labels').exists()


def test_pictures_in_folders_of_the_output_are_kept(root):
    (root / 'out/north').mkdir(parents=True)
    (root / 'out/north/b.png').write_bytes(b'a photo')
    with pytest.raises(UserError, match=r'OUT out: out/north/b\.png would be replaced'):
        convert_masks('masks', 'out', 'classes.txt')
    assert [file.name for file in root.glob('out/**/*.*')] == ['b.png']


@pytest.mark.parametrize('colour', [(0, 0, 255), (0, 0, 300)])
def test_colours_that_cannot_be_ignored(root, colour):
    with pytest.raises(UserError, match=f'--ignore 0 0 {colour[2]}: give a colour, 0 to 255, that'):
        convert_masks('masks', 'labels', 'classes.txt', [colour], others=True)


def test_cli(root):
    Image.fromarray(COLOURS[LABELS + 1]).save('masks/north/c.png')
    words = ['masks', 'labels', '--classes-from', 'classes.txt']
    words = [str(root / word) if '.' in word or word in words[:2] else word for word in words]
    done = run_tool(REPOSITORY / 'tools/convert_masks.py', *words)
    assert done.returncode == 2
    assert 'as --ignore R G B' in done.stderr
    done = run_tool(REPOSITORY / 'tools/convert_masks.py', *words, '--ignore', '0', '0', '0')
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f'3 label maps in {root}/labels\n')
