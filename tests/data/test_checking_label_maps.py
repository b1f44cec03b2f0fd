"""Label maps that mmseg would stop at or misread are refused by name."""

import numpy as np
import pytest
import torch
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
    found = {
        (f.severity, f.kind)
        for report in check_everything(config)
        for f in report.findings
        if f.file == f'{tmp_path}/labels/a.png'
    }
    if severity is None:
        assert not found
    else:
        (got,) = found
        assert got[0] == severity
        assert kind in got[1]


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


def write_pairs(root, label_maps):
    for number, labels in enumerate(label_maps):
        Image.fromarray(small_data.pixels()).save(root / f'images/{number}.png')
        save(labels)(root / f'labels/{number}.png')


@pytest.fixture
def two_classes(config, tmp_path):
    (tmp_path / 'images/a.png').unlink()
    config.model.decode_head.num_classes = 2
    for part in ('train', 'val', 'test'):
        config[f'{part}_dataloader'].dataset.update(
            reduce_zero_label=False, metainfo={'classes': ('background', 'nucleus')}
        )
    return config


def test_masks_of_0_and_255(two_classes, tmp_path, capsys):
    masks = (LABELS > 2).astype(np.uint8)
    write_pairs(tmp_path, [255 * masks, 0 * masks])
    reports = check_everything(two_classes)
    (finding,) = reports[0].findings
    assert finding.severity == ERROR
    assert 'label maps with the labels 0 and 255 alone' in finding.kind
    assert 'all would be background. If 255 means nucleus: python tools/con' in finding.detail
    # A few label maps do not prove it.
    check_before_run(two_classes, ('train',))
    assert 'warning: label maps with the labels 0 and 255 alone' in capsys.readouterr().out
    write_pairs(tmp_path, [255 * masks, masks])
    assert not check_everything(two_classes)[0].findings


def test_classes_that_no_label_map_has(config, tmp_path):
    (tmp_path / 'images/a.png').unlink()
    write_pairs(tmp_path, [LABELS.clip(0, 3)])
    config.val_dataloader.dataset.test_mode = True  # unlike for training
    train, val = check_everything(config)[:2]
    assert [(f.severity, f.kind) for f in train.findings] == [(WARNING, 'class without a pixel')]
    assert train.findings[0].detail == 'd, e: it cannot be learnt'
    assert 'd, e: its IoU is 0 once a pixel is predicted as it, otherwise' in val.findings[0].detail
    write_pairs(tmp_path, [0 * LABELS])
    kinds = [finding.kind for finding in check_everything(config)[0].findings]
    assert 'label maps without any class' in kinds


def test_what_mmseg_says_of_a_class_that_is_not_there(config):
    from mmseg.evaluation import IoUMetric

    metric = IoUMetric()
    metric.dataset_meta = {'classes': ('a', 'b', 'c')}
    truth = torch.tensor([[0, 0, 1, 1]])
    for predicted, expected in (([[0, 0, 1, 1]], 100), ([[0, 0, 1, 2]], 50)):
        sample = {
            'pred_sem_seg': {'data': torch.tensor(predicted)}, 'gt_sem_seg': {'data': truth}
        }  # fmt: skip
        metric.process({}, [sample])
        assert metric.compute_metrics(metric.results)['mIoU'] == expected
        metric.results.clear()


def test_some_label_maps_are_opened_before_a_run(config, tmp_path):
    (tmp_path / 'images/a.png').unlink()
    write_pairs(tmp_path, [LABELS] * 9)
    check_before_run(config, ('train',))
    for number in range(9):
        save(LABELS + 3)(tmp_path / f'labels/{number}.png')
    with pytest.raises(DataError, match=r'label map with unknown labels \(8\)'):
        check_before_run(config, ('train',))
