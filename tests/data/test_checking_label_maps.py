"""Label maps that mmseg would stop at or misread are refused by name."""

import re

import numpy as np
import pytest
from helpers import small_data
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from lightvit_mm.data.checking import check_before_run, check_everything, summary
from lightvit_mm.data.findings import ERROR, NOTE, WARNING, DataError

LABELS = (small_data.pixels(channels=1) % 6).astype(np.uint8)


def save(array):
    return lambda path: Image.fromarray(array).save(path)


def palette(path):
    image = Image.fromarray(LABELS)
    image.putpalette(list(range(256)) * 3)
    image.save(path)


CASES = {
    'plain': (save(LABELS), None, ''),
    'palette': (palette, None, ''),
    'bits': (lambda path: Image.fromarray(LABELS > 2).save(path), None, ''),
    'JPEG': (lambda path: Image.new('L', small_data.SIZE, 1).save(path, 'JPEG'), WARNING, 'JPEG'),
    'all 255': (save(np.full_like(LABELS, 255)), NOTE, 'nothing but the ignored label'),
    'alpha': (save(small_data.pixels(channels=4)), ERROR, 'colours or of more than 8 bits'),
    'grey with alpha': (
        lambda path: Image.fromarray(LABELS).convert('LA').save(path), ERROR, 'colours or of more',
    ),
    '32 bits': (
        lambda path: Image.fromarray(LABELS.astype(np.int32)).save(path, 'TIFF'),
        ERROR, 'colours or of more than 8 bits',
    ),
    'float': (
        lambda path: Image.fromarray(LABELS.astype('f')).save(path, 'TIFF'), ERROR, 'colours or of',
    ),
    'GIF': (lambda path: Image.fromarray(LABELS).save(path, 'GIF'), None, ''),
    'larger': (save(np.tile(LABELS, 2)), ERROR, 'another size than its image'),
    'one row': (save(LABELS[:1]), ERROR, 'of a single row or column'),
    'one pixel': (save(LABELS[:1, :1]), ERROR, 'cannot be read'),
    'ignored alone': (save(np.zeros_like(LABELS)), NOTE, 'nothing but the ignored label'),
    'unknown labels': (save(LABELS + 3), ERROR, 'unknown labels'),
    'wrong size': (save(LABELS[:10]), ERROR, 'another size than its image'),
    'colours': (save(small_data.pixels()), ERROR, 'colours or of more than 8 bits'),
    '16 bits': (save(LABELS.astype(np.uint16) * 256), ERROR, 'colours or of more than 8 bits'),
    'empty': (lambda path: path.write_bytes(b''), ERROR, 'cannot be read'),
    'cut': (lambda path: path.write_bytes(b'\x89PNG'), ERROR, 'cannot be read'),
    'missing': (lambda path: None, ERROR, 'label map missing'),
}  # fmt: skip


@pytest.fixture
def config(tmp_path):
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    Image.fromarray(small_data.pixels()).save(tmp_path / 'images/a.png')
    # In the label maps 0 is to be ignored and 1 to 5 are the classes.
    config = small_data.segmentor_config(tmp_path)
    for part in ('train', 'val', 'test'):
        config[f'{part}_dataloader'].dataset.reduce_zero_label = True
    return config


@pytest.mark.parametrize(('make', 'severity', 'kind'), CASES.values(), ids=CASES)
def test_label_maps(config, tmp_path, make, severity, kind):
    make(tmp_path / 'labels/a.png')
    reports = check_everything(config)
    found = {
        (f.severity, f.kind, f.file)
        for report in reports
        for f in report.findings
        if f.file != report.source  # of all label maps together
    }
    if severity is None:
        assert not found
    else:
        (got,) = found
        assert got[0] == severity
        assert kind in got[1]
        assert got[2] == f'{tmp_path}/labels/a.png'


HALF = LABELS < 3
SETS = {
    'all classes': ([LABELS], False, None, ''),
    'all classes in two': ([LABELS % 3, LABELS % 2 + 3], False, None, ''),
    'binary': ([HALF * 1, HALF * 1], False, WARNING, 'without any pixel: c, d, e$'),
    'masks': ([HALF * 255, HALF * 0], False, ERROR, "maps of 0 and 255.*only 'a' is left: write 1"),
    'masks without zero': ([HALF * 255], True, ERROR, 'nothing but the ignored label'),
    'one class without zero': ([HALF * 1], True, WARNING, 'without any pixel: b, c, d, e$'),
    'nothing': ([HALF * 0 + 255], False, ERROR, 'nothing but the ignored label'),
    'not to be read': ([LABELS.astype(np.uint16)], False, None, ''),
}  # fmt: skip


@pytest.mark.parametrize(('maps', 'reduce', 'severity', 'said'), SETS.values(), ids=SETS)
def test_all_label_maps_together(config, tmp_path, maps, reduce, severity, said):
    for number, labels in enumerate(maps):
        Image.fromarray(small_data.pixels()).save(tmp_path / f'images/{"ab"[number]}.png')
        labels = labels.astype(labels.dtype if labels.dtype == np.uint16 else np.uint8)
        save(labels)(tmp_path / f'labels/{"ab"[number]}.png')
    for part in ('train', 'val', 'test'):
        config[f'{part}_dataloader'].dataset.update(
            reduce_zero_label=reduce, test_mode=part != 'train'
        )
    learnt, compared = check_everything(config)
    found = [f for f in learnt.findings if f.file == learnt.source]
    assert [f.severity for f in found] == ([severity] if severity else [])
    assert all(re.search(said, f'{f.kind}: {f.detail}') for f in found)
    others = [f.severity for f in compared.findings if f.file == compared.source]
    # Some pictures to validate on may well be of one class.
    assert others == ([severity] if 'nothing' in said else [WARNING] if 'maps of' in said else [])


def test_what_mmseg_does_with_them(config, tmp_path):
    # The reason why they are errors: only a missing file stops it.
    init_default_scope('mmseg')
    dataset = DATASETS.build(config.train_dataloader.dataset)
    save(LABELS.astype(np.uint16) * 256)(tmp_path / 'labels/a.png')
    assert dataset[0]['gt_seg_map'].max() == 255, 'cut to 8 bits: everything is 0, then ignored'
    save(small_data.pixels())(tmp_path / 'labels/a.png')
    assert dataset[0]['gt_seg_map'].ndim == 3
    (tmp_path / 'labels/a.png').unlink()
    with pytest.raises(FileNotFoundError):
        dataset[0]


def test_missing_label_maps_and_images_stop_a_run_at_once(config, tmp_path):
    with pytest.raises(DataError, match=r'label map missing \(1\)\n.*labels/a\.png: of .*a\.png'):
        check_before_run(config, ('train',))
    save(LABELS)(tmp_path / 'labels/a.png')
    check_before_run(config, ('train', 'val', 'test'))
    config.train_dataloader.dataset.img_suffix = '.jpg'
    with pytest.raises(DataError, match=r'no file ending in \.jpg'):
        check_before_run(config, ('train',))


def test_a_list_of_names(config, tmp_path):
    (tmp_path / 'names.txt').write_text('a\nb\n')
    save(LABELS)(tmp_path / 'labels/a.png')
    config.train_dataloader.dataset.ann_file = 'names.txt'
    with pytest.raises(DataError) as error:
        check_before_run(config, ('train',))
    assert 'image file missing (1)' in str(error.value)
    assert 'label map missing (1)' in str(error.value)


def test_heads_for_another_number_of_classes(config, tmp_path):
    save(LABELS)(tmp_path / 'labels/a.png')
    config.model.decode_head.num_classes = 150
    with pytest.raises(DataError, match=r'decode_head\.num_classes is 150.* 5 classes'):
        check_before_run(config, ('train',))
    assert '1 errors' not in summary([])


def test_palettes_that_are_read_as_colours(config, tmp_path):
    palette(tmp_path / 'labels/a.png')
    for part in ('train', 'val', 'test'):
        pipeline = config[f'{part}_dataloader'].dataset.pipeline
        pipeline[1] = {'type': 'LoadAnnotations', 'imdecode_backend': 'cv2'}
    (finding,) = check_everything(config)[0].findings
    assert finding.kind == 'label map whose palette is not read as numbers'
    assert 'pillow' in finding.detail


def test_images_of_another_suffix_are_reported(config, tmp_path, capsys):
    save(LABELS)(tmp_path / 'labels/a.png')
    Image.fromarray(small_data.pixels()).save(tmp_path / 'images/b.jpg')
    (tmp_path / 'images/notes.txt').write_text('')
    check_before_run(config, ('train',))
    said = capsys.readouterr().out
    assert 'image of another suffix, left out (1)' in said
    assert f"{tmp_path}/images/b.jpg: img_suffix is '.png'" in said


def test_a_list_of_names_that_is_no_text(config, tmp_path):
    save(LABELS)(tmp_path / 'labels/a.png')
    (tmp_path / 'names.txt').write_bytes(b'\xff\xfe')
    config.train_dataloader.dataset.ann_file = 'names.txt'
    with pytest.raises(DataError, match=r'list of images that cannot be read.*\n.*names\.txt'):
        check_before_run(config, ('train',))
