"""Every kind of image is used in training and prediction or refused by name; the check agrees."""

import json

import cv2
import numpy as np
import pytest
from helpers import small_data
from helpers.small_data import SIZE, pixels
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from lightvit_mm.data.checking import check_everything, summary
from lightvit_mm.data.findings import ERROR, NOTE, WARNING
from lightvit_mm.engine.broken_samples import BrokenSampleError, name_broken_samples
from lightvit_mm.engine.predicting import predict
from lightvit_mm.engine.running import train

pytestmark = pytest.mark.usefixtures('quick_runner')

SCENE = Image.fromarray(pixels())


def cut(path):
    Image.fromarray(pixels(512, 384)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rotated(path):
    exif = Image.Exif()
    exif[0x112] = 6
    SCENE.save(path, exif=exif)


# Name: how to make it, size when loaded, severity (or None) and words of its kind.
GOOD = {
    'plain.jpg': (SCENE.save, SIZE, None, ''),
    'suffix.jpg': (lambda p: SCENE.save(p, 'PNG'), SIZE, NOTE, 'suffix of another format'),
    'one.png': (lambda p: Image.fromarray(pixels(1, 1)).save(p), (1, 1), WARNING, 'tiny'),
    'grey.png': (lambda p: SCENE.convert('L').save(p), SIZE, NOTE, 'grey'),
    'cmyk.jpg': (lambda p: SCENE.convert('CMYK').save(p), SIZE, NOTE, 'CMYK'),
    'deep.png': (
        lambda p: cv2.imwrite(str(p), pixels().astype(np.uint16) * 256),
        SIZE, WARNING, '16-bit',
    ),
    'deep grey.tif': (
        lambda p: Image.fromarray(pixels(channels=1).astype(np.uint16)).save(p),
        SIZE, WARNING, '16-bit',
    ),
    'alpha.png': (lambda p: SCENE.convert('RGBA').save(p), SIZE, NOTE, 'transparency'),
    'palette.png': (lambda p: SCENE.convert('P').save(p), SIZE, None, ''),
    'bits.png': (lambda p: SCENE.convert('1').save(p), SIZE, NOTE, 'grey'),
    'rotated.jpg': (rotated, SIZE[::-1], NOTE, 'EXIF rotation, applied as'),
    'long.png': (
        lambda p: Image.fromarray(pixels(20_000, 10)).save(p), (20_000, 10), WARNING,
        'very long',
    ),
}  # fmt: skip
BROKEN = {
    'cut.jpg': (cut, 'damaged or cut short'),
    'cut.png': (cut, 'damaged or cut short'),
    'empty.jpg': (lambda p: p.write_bytes(b''), 'image file empty'),
    'phone.heic': (
        lambda p: p.write_bytes(b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(999)),
        'cannot be decoded',
    ),
    'page.jpg': (lambda p: p.write_bytes(b'<!DOCTYPE html>'), 'cannot be decoded'),
    'float.tif': (
        lambda p: Image.fromarray(pixels(channels=1).astype(np.float32)).save(p),
        'cannot be decoded',
    ),
}


def data_set(root, makers, sizes):
    for part in ('train', 'val'):
        folder = root / 'images' / part
        folder.mkdir(parents=True)
        for name, make in makers.items():
            make(folder / name)
    small_data.write_coco(root, small_data.coco(sizes))
    config = small_data.detector_config(root)
    # As our configs for COCO; a long side of 128 would leave no pixel of the long image.
    for part in ('train', 'val', 'test'):
        config[f'{part}_dataloader'].dataset.pipeline.insert(
            1, {'type': 'Resize', 'scale': (1333, 800), 'keep_ratio': True}
        )
    return config


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    root = tmp_path_factory.mktemp('good')
    makers = {name: case[0] for name, case in GOOD.items()}
    return root, data_set(root, makers, {name: case[1] for name, case in GOOD.items()})


@pytest.fixture(scope='module')
def reports(good):
    return check_everything(good[1])


def of(reports, name):
    found = [f for report in reports for f in report.findings if f.file.endswith(f'train/{name}')]
    return {(finding.severity, finding.kind) for finding in found}


def pipeline_of(config):
    init_default_scope('mmdet')
    dataset = DATASETS.build(config.train_dataloader.dataset)
    name_broken_samples(dataset)
    return dataset


@pytest.mark.parametrize('name', GOOD)
def test_what_is_trained_on(good, reports, name):
    _, size, severity, kind = GOOD[name]
    found = of(reports, name)
    assert not [kind for severity, kind in found if severity == ERROR]
    assert (severity is None and not found) or any(
        severity == there and kind in words for there, words in found
    ), found
    dataset = pipeline_of(good[1])
    data = dataset[list(GOOD).index(name)]
    assert data['inputs'].shape[0] == 3
    assert min(data['inputs'].shape[1:]) >= 1
    assert data['data_samples'].ori_shape == size[::-1]
    boxes = data['data_samples'].gt_instances.bboxes.tensor
    assert boxes.isfinite().all()


def test_training_and_prediction_on_all_of_them(good, tmp_path):
    root, config = good
    config = config.copy()
    config.work_dir = str(tmp_path / 'work')
    config.train_cfg = {'type': 'EpochBasedTrainLoop', 'max_epochs': 1, 'val_interval': 1}
    config.default_hooks.checkpoint.interval = 1
    config.train_dataloader.batch_size = 6
    for dataloader in (config.train_dataloader, config.val_dataloader):
        dataset = dataloader.dataset
        dataset.pipeline[1]['scale'] = (256, 128)
    long = list(GOOD).index('long.png')
    content = json.loads((root / 'annotations/instances_train.json').read_text())
    assert content['images'][long]['width'] == 20_000
    for dataloader in (config.train_dataloader, config.val_dataloader):
        dataloader.dataset.indices = [i for i in range(len(GOOD)) if i != long]
    runner = train(config)
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert np.isfinite(losses).all()
    assert len(losses) == 2

    (root / 'images/val/broken.jpg').write_bytes(b'<!DOCTYPE html>')
    (root / 'images/val/empty.png').write_bytes(b'')
    (root / 'images/val/phone.heic').write_bytes(b'')
    SCENE.save(root / 'images/val/moving.gif')
    made = predict(
        config, str(tmp_path / 'work/epoch_1.pth'), str(root / 'images/val'), str(tmp_path / 'out')
    )
    failed = {path.rsplit('/', 1)[-1] for path in made.failed}
    assert failed == {'broken.jpg', 'empty.png', 'long.png'}
    assert {picture.name for picture in made.pictures} == set(GOOD) - failed
    assert all(picture.stat().st_size for picture in made.pictures)


@pytest.mark.parametrize('name', BROKEN)
def test_what_is_refused(tmp_path, name):
    make, kind = BROKEN[name]
    config = data_set(tmp_path, {name: make}, {name: SIZE})
    assert any(s == ERROR and kind in words for s, words in of(check_everything(config), name))
    if not name.startswith('cut'):  # of which OpenCV may show the upper half
        with pytest.raises(BrokenSampleError, match=rf'train/{name} \(image 1\) cannot be used'):
            pipeline_of(config)[0]


def test_rotation_that_the_annotations_do_not_know(tmp_path):
    config = data_set(tmp_path, {'a.jpg': rotated}, {'a.jpg': SIZE})
    reports = check_everything(config)
    assert any('without the EXIF rotation' in kind for _, kind in of(reports, 'a.jpg'))
    assert 'color_ignore_orientation' in summary(reports)
    for part in ('train', 'val', 'test'):
        config[f'{part}_dataloader'].dataset.pipeline[0].color_type = 'color_ignore_orientation'
    assert not of(check_everything(config), 'a.jpg')


def test_rotation_that_keeps_the_size(tmp_path):
    def mirrored(path):
        exif = Image.Exif()
        exif[0x112] = 3
        SCENE.save(path, exif=exif)

    config = data_set(tmp_path, {'a.jpg': mirrored}, {'a.jpg': SIZE})
    found = of(check_everything(config), 'a.jpg')
    assert found == {(WARNING, 'EXIF rotation that keeps the size')}


def test_resizing_that_leaves_nothing(tmp_path):
    def make(path):
        Image.fromarray(pixels(20_000, 10)).save(path)

    config = data_set(tmp_path, {'a.png': make}, {'a.png': (20_000, 10)})
    for part in ('train', 'val', 'test'):
        config[f'{part}_dataloader'].dataset.pipeline[1]['scale'] = (256, 128)
    assert (ERROR, 'image that resizing would reduce to nothing') in of(
        check_everything(config), 'a.png'
    )
    with pytest.raises(BrokenSampleError, match=r'a\.png'):
        pipeline_of(config)[0]
    config.train_dataloader.dataset.pipeline[1]['scale'] = 128  # mmcv takes it for both sides
    assert (ERROR, 'image that resizing would reduce to nothing') in of(
        check_everything(config), 'a.png'
    )


@pytest.mark.parametrize('workers', [0, 1])
def test_a_broken_image_stops_a_training_by_name(tmp_path, workers):
    make, _ = BROKEN['empty.jpg']
    config = data_set(tmp_path, {'a.jpg': make}, {'a.jpg': SIZE})
    config.work_dir = str(tmp_path / 'work')
    config.train_dataloader.num_workers = workers
    with pytest.raises(BrokenSampleError) as error:
        train(config)
    said = str(error.value)
    assert said.startswith(f'{tmp_path}/images/train/a.jpg (image 1) cannot be used: error: ')
    assert 'check_data.py' in said
    assert 'Traceback' not in said


def test_wrapped_data_sets_name_them_too(good):
    config = good[1].copy()
    inner = config.train_dataloader.dataset
    config.train_dataloader.dataset = {
        'type': 'RepeatDataset', 'times': 2,
        'dataset': {'type': 'ConcatDataset', 'datasets': [inner]},
    }  # fmt: skip
    dataset = pipeline_of(config)
    pipeline = dataset.dataset.datasets[0].pipeline
    assert type(pipeline).__name__ == '_NamingPipeline'
    name_broken_samples(dataset)
    assert dataset.dataset.datasets[0].pipeline is pipeline
