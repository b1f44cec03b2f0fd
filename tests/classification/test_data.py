"""Reading images by class: folders, archives and the official files; checking them."""

import io
import shutil
import tarfile

import numpy as np
import pytest
import scipy.io
import torch
from helpers import class_folders, timm_reference
from helpers.class_folders import tiny_classifier
from mmengine.registry import DATASETS
from PIL import Image

from lightvit_mm.classification.transforms import make_transform
from lightvit_mm.data.checking import check_before_run, check_everything
from lightvit_mm.data.findings import DataError
from lightvit_mm.data.imagenet_files import DEVKIT
from lightvit_mm.data.own import use_own_data
from lightvit_mm.errors import UserError

TRANSFORM = {'input_size': 32, 'interpolation': 'bicubic'}


@pytest.fixture(autouse=True)
def _timm():
    timm_reference.import_timm()


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    return class_folders.write_images(tmp_path_factory.mktemp('classes'), train=2, val=1)


def dataset(root, part='train', **options):
    config = {
        'type': 'ClassFolders', 'data_root': str(root), 'data_prefix': {'img': part},
        'transform': TRANSFORM, **options,
    }  # fmt: skip
    return DATASETS.build(config)


def content(data):
    return [(data.label(i), data[i]['inputs']) for i in range(len(data))]


def assert_same(one, other):
    """The order of the images depends on their names, which archives change."""
    one, other = (sorted((label, image.tolist()) for label, image in c) for c in (one, other))
    assert one == other


def pack(archive, source, arcname=''):
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, 'w') as tar:
        for file in sorted(source.rglob('*.png')):
            tar.add(file, arcname + str(file.relative_to(source)))


def test_a_folder(folders):
    data = dataset(folders)
    assert data.metainfo['classes'] == ('blue', 'green', 'red')
    assert [data.label(i) for i in range(6)] == [0, 0, 1, 1, 2, 2]
    sample = data[3]
    assert sample['inputs'].dtype == torch.uint8
    assert sample['inputs'].shape == (3, 32, 32)
    assert sample['inputs'].float().mean((1, 2)).argmax() == 1, 'RGB'
    assert sample['data_samples'].gt_label == 1
    assert sample['data_samples'].img_path == str(folders / 'train/green/1.png')
    several = dataset(folders, sizes=(16, 24))
    assert [several[0, size]['inputs'].shape[1] for size in (0, 1)] == [16, 24]


def test_archives_hold_the_same(folders, tmp_path):
    expected = content(dataset(folders))
    pack(tmp_path / 'one/train.tar', folders / 'train')
    for name in class_folders.COLOURS:
        pack(tmp_path / f'each/train/{name}.tar', folders / 'train' / name)
        pack(tmp_path / f'official/{name}.tar', folders / 'train' / name, f'{name}_')
    with tarfile.open(tmp_path / 'official/ILSVRC2012_img_train.tar', 'w') as tar:
        for name in class_folders.COLOURS:
            tar.add(tmp_path / f'official/{name}.tar', f'{name}.tar')
            (tmp_path / f'official/{name}.tar').unlink()
    for root in ('one', 'each', 'official'):
        data = dataset(tmp_path / root)
        assert data.metainfo['classes'] == ('blue', 'green', 'red')
        assert_same(content(data), expected)


def official_validation(root, folders, truth=(3, 1, 2)):
    """The images as the official archive has them, and a development kit that numbers classes."""
    root.mkdir()
    with tarfile.open(root / 'ILSVRC2012_img_val.tar', 'w') as tar:
        for number, name in enumerate(('blue', 'green', 'red'), 1):
            tar.add(folders / f'val/{name}/0.png', f'ILSVRC2012_val_{number:08}.png')
    names = {1: 'green', 2: 'red', 3: 'blue'}
    synsets = np.array(
        list(names.items()),
        dtype=[('ILSVRC2012_ID', 'O'), ('WNID', 'O')],
    )
    mat = io.BytesIO()
    scipy.io.savemat(mat, {'synsets': synsets})
    files = {
        'meta.mat': mat.getvalue(),
        'ILSVRC2012_validation_ground_truth.txt': '\n'.join(map(str, truth)).encode(),
    }
    with tarfile.open(root / DEVKIT, 'w:gz') as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f'ILSVRC2012_devkit_t12/data/{name}')
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))


def test_the_official_validation_archive(folders, tmp_path):
    root = tmp_path / 'imagenet'
    official_validation(root, folders)
    data = dataset(root, 'val')
    assert data.metainfo['classes'] == ('blue', 'green', 'red')
    assert_same(content(data), content(dataset(folders, 'val')))
    (root / DEVKIT).write_bytes(b'an interrupted download')
    with pytest.raises(DataError, match='is not the development kit'):
        dataset(root, 'val')
    (root / DEVKIT).unlink()
    with pytest.raises(DataError, match=f'put {DEVKIT} into'):
        dataset(root, 'val')


def test_nothing_to_read(tmp_path):
    with pytest.raises(DataError, match='does not exist'):
        dataset(tmp_path)
    (tmp_path / 'train').mkdir()
    with pytest.raises(DataError, match=r'train/cat/1\.jpg'):
        dataset(tmp_path)


@pytest.fixture
def copied(folders, tmp_path):
    return shutil.copytree(folders, tmp_path / 'copy')


def kinds(config):
    return {
        (report.part, finding.severity, finding.kind)
        for report in check_everything(config)
        for finding in report.findings
    }


def test_good_folders_have_no_findings(folders, tmp_path):
    assert kinds(tiny_classifier(folders, tmp_path)) == set()


def test_what_is_wrong_in_folders_is_found(copied, tmp_path):
    config = tiny_classifier(copied, tmp_path)
    (copied / 'train/blue/0.png').write_bytes(b'')
    shutil.copy(copied / 'train/red/0.png', copied / 'train/green/9.png')
    shutil.copy(copied / 'train/red/1.png', copied / 'val/red/9.png')
    shutil.copy(copied / 'train/red/1.png', copied / 'val/loose.png')
    (copied / 'train/empty').mkdir()
    (copied / 'train/notes.txt').write_text('')
    (copied / 'train/red/photo.webp').write_text('')
    (copied / 'train/yellow').mkdir()
    shutil.copy(copied / 'train/blue/1.png', copied / 'train/yellow/1.png')
    shutil.rmtree(copied / 'val/blue')
    found = kinds(config)
    assert found >= {
        ('train', 'error', 'image file empty'),
        ('train', 'error', 'class that the config does not have'),
        ('train', 'warning', 'same image in two classes'),
        ('train', 'warning', 'folder without images'),
        ('train', 'warning', 'images in a format that is not read'),
        ('train', 'note', 'files that are no images'),
        ('val', 'error', 'image outside the folders of classes'),
        ('val', 'warning', 'class of the config without images'),
        ('val', 'warning', 'image of train in val too'),
    }
    with pytest.raises(DataError, match='class that the config does not have'):
        check_before_run(config, ('train', 'val'))


def test_archives_are_checked_like_folders(copied, tmp_path):
    config = tiny_classifier(copied, tmp_path)
    for part in ('train', 'val', 'test'):
        dataset = config[f'{part}_dataloader'].dataset
        del dataset['metainfo']
        dataset.data_root = str(tmp_path / 'tar')
    for part in ('train', 'val'):
        pack(tmp_path / f'tar/{part}.tar', copied / part)
    assert kinds(config) == set()
    shutil.copy(copied / 'train/red/0.png', copied / 'train/green/9.png')
    shutil.copy(copied / 'train/red/1.png', copied / 'val/red/9.png')
    shutil.copy(copied / 'train/red/1.png', copied / 'val/loose.png')
    (copied / 'train/blue/0.png').write_bytes(b'')
    shutil.rmtree(copied / 'val/blue')
    for part in ('train', 'val'):
        pack(tmp_path / f'tar/{part}.tar', copied / part)
    assert kinds(config) == {
        ('train', 'error', 'image file empty'),
        ('train', 'warning', 'same image in two classes'),
        ('val', 'error', 'image outside the folders of classes'),
        ('val', 'error', 'class of the training data without images'),
        ('val', 'error', 'head for another number of classes'),
        ('val', 'warning', 'image of train in val too'),
        ('val', 'warning', 'same image in two classes'),
    }
    report, _ = check_everything(config)
    assert report.counts == {'images': 7, 'classes': 3}
    assert any(f.file.endswith('train.tar: blue/0.png') for f in report.findings)
    archive = tmp_path / 'tar/train.tar'
    archive.write_bytes(archive.read_bytes()[:700])
    with pytest.raises(DataError, match='damaged or cut short'):
        check_everything(config)


def test_folders_are_compared_where_the_config_names_no_classes(copied, tmp_path):
    config = tiny_classifier(copied, tmp_path)
    for part in ('train', 'val', 'test'):
        del config[f'{part}_dataloader'].dataset['metainfo']
    shutil.rmtree(copied / 'val/blue')
    assert ('val', 'error', 'class of the training data without images') in kinds(config)
    config.model.head.num_classes = 5
    assert ('train', 'error', 'head for another number of classes') in kinds(config)


def test_own_folders(folders, tmp_path, capsys):
    config = tiny_classifier(folders, tmp_path)
    assert config.model.head.num_classes == 3
    assert config.test_dataloader.dataset.metainfo.classes == ('blue', 'green', 'red')
    assert '3 classes: blue, green, red' in capsys.readouterr().out
    # An evaluation keeps the classes of the training, whatever the folders.
    shutil.copytree(folders / 'val/red', tmp_path / 'some/red')
    use_own_data(config, None, [str(tmp_path / 'some')])
    assert config.test_dataloader.dataset.metainfo.classes == ('blue', 'green', 'red')
    for arguments, message in (
        ((['a', 'b'],), 'takes one folder'),
        (([str(tmp_path / 'nowhere')],), 'is not a folder'),
        ((None, None, 'classes.txt'), 'are the folders of --train-data'),
    ):
        with pytest.raises(UserError, match=message):
            use_own_data(config, *arguments)
    config.model.teacher = {'model': 'regnety_160', 'checkpoint': 'x'}
    config.model.head.num_classes = 1000
    with pytest.raises(UserError, match='use the config without _distill'):
        use_own_data(config, [str(folders / 'train')])


def test_the_strongest_posterising_is_black():
    from timm.data.auto_augment import AugmentOp

    make_transform(input_size=32, is_training=True, auto_augment='rand-m9-mstd0.5-inc1')
    image = Image.new('RGB', (4, 4), (200, 100, 50))
    for magnitude, expected in ((10, (0, 0, 0)), (7, (192, 64, 0))):
        operation = AugmentOp('PosterizeIncreasing', prob=1.0, magnitude=magnitude)
        assert operation(image).getpixel((0, 0)) == expected
