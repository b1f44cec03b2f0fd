"""ncnn files."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import mmcv
import pytest
import torch
from helpers.detectors import random_detector, save_detector
from helpers.repository import REPOSITORY
from helpers.variants import MINIATURES, randomise_vectors
from torch import nn

pytest.importorskip('ncnn', reason='not installed: pip install -e ".[ncnn]"')
pytest.importorskip('pnnx', reason='not installed: pip install -e ".[ncnn]"')

from lightvit_mm.backbones import EfficientViT, MobileViT, ShuffleSwin, ShuffleT2TViT
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.predicting import predict
from lightvit_mm.errors import UserError
from lightvit_mm.export.exporting import export, export_subject
from lightvit_mm.export.subject import Subject
from lightvit_mm.runtimes.session import open_file

LIGHT = str(REPOSITORY / 'configs/light_edgevit_xxs_shapes.py')


@pytest.fixture(scope='module')
def image(shapes):
    return str(sorted((shapes / 'images/val').glob('*.png'))[0])


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp('trained') / 'epoch_1.pth'
    return save_detector(random_detector(load_config(LIGHT)), file)


@pytest.fixture(scope='module')
def made(checkpoint, image, tmp_path_factory):
    out = tmp_path_factory.mktemp('made') / 'model.ncnn.param'
    return export(load_config(LIGHT), checkpoint, str(out), (128, 128), images=[image])


def detections(weights, photo, folder):
    """What tools/predict.py finds."""
    done = predict(load_config(LIGHT), str(weights), str(photo), str(folder / 'out'))
    (entry,) = json.loads(done.json_file.read_text())['images']
    return entry['detections']


def test_a_detector(checkpoint, made, image, tmp_path):
    assert made.deviation < 1e-4
    assert made.checked[1].detections > 20
    beside = ['model.ncnn.bin', 'model.ncnn.json', 'model.ncnn.param']
    assert sorted(file.name for file in made.file.parent.iterdir()) == beside
    assert open_file(made.file).metadata['task'] == 'detection'
    found = [detections(weights, image, tmp_path) for weights in (checkpoint, made.file)]
    assert len(found[0]) == len(found[1]) > 20
    for ours, theirs in zip(*found, strict=True):
        assert ours['class'] == theirs['class']
        assert ours['score'] == pytest.approx(theirs['score'], abs=1e-4)
        assert ours['box_xyxy'] == pytest.approx(theirs['box_xyxy'], abs=0.06)
    broken = shutil.copy(made.file, tmp_path)
    for suffix, content in (('.json', made.file.with_suffix('.json').read_bytes()), ('.bin', b'')):
        (tmp_path / made.file.name).with_suffix(suffix).write_bytes(content)
    with pytest.raises(UserError, match=r'model\.ncnn\.param is not a file that ncnn can run'):
        open_file(broken).run(mmcv.imread(image).transpose(2, 0, 1)[None].astype('float32'))


@pytest.fixture(scope='module')
def example(tmp_path_factory):
    """examples/detect_ncnn.cpp, built by the lines of its first comment."""
    if not shutil.which('cmake'):
        pytest.skip('no cmake on the path')
    folder = tmp_path_factory.mktemp('example')
    source = shutil.copy(REPOSITORY / 'examples/detect_ncnn.cpp', folder)
    comment = Path(source).read_text().split('\n\n')[0]
    lines = re.findall(r'^//     (.+)$', comment, re.MULTILINE)
    first = lines.index('cmake_minimum_required(VERSION 3.10)')
    *recipe, configure, build = lines[first:]
    (folder / 'CMakeLists.txt').write_text('\n'.join(recipe))
    for command in (configure, build):
        # CMake also takes the folder from the environment.
        words = [word for word in shlex.split(command) if not word.startswith('-Dncnn_DIR=')]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
        if 'package configuration file provided by "ncnn"' in done.stderr:
            pytest.skip(
                'CMake does not find ncnn: build it (examples/detect_ncnn.cpp has the lines) and '
                'set ncnn_DIR to its folder lib/cmake/ncnn'
            )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / 'build/detect_ncnn'


# The width of the second becomes 94.5.
@pytest.mark.parametrize('shape', [(100, 128), (256, 189)])
def test_the_example(example, made, image, shape, tmp_path):
    photo, drawn = tmp_path / 'in/photo.png', tmp_path / 'drawn.png'
    whole = mmcv.imresize(mmcv.imread(image), (max(128, shape[0]),) * 2)
    mmcv.imwrite(whole[: shape[0], : shape[1]], str(photo))
    words = [example, made.file, photo, drawn]
    done = subprocess.run(words, env={}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert last == f'wrote {drawn}'
    expected = [d for d in detections(made.file, photo, tmp_path) if d['score'] >= 0.3]
    assert len(lines) == len(expected) > 5
    for line in lines:  # nearly equal scores may change places
        name, score, *box = line.split()
        same = [
            found
            for found in expected
            if found['class'] == name
            and float(score) == pytest.approx(found['score'], abs=0.002)
            and [*map(float, box)] == pytest.approx(found['box_xyxy'], abs=0.06)
        ]
        assert same, line
        expected.remove(same[0])
    # The border of the best box is red.
    left, top = (round(float(value)) for value in lines[0].split()[2:4])
    assert list(mmcv.imread(drawn)[top + 3, left]) == [0, 0, 255]


def test_the_example_reads_its_json(example, made, image, tmp_path):
    metadata = json.loads(made.file.with_suffix('.json').read_text())

    def run(photo, classes=metadata['classes'], **resize):
        for suffix in ('.param', '.bin'):
            shutil.copy(made.file.with_suffix(suffix), tmp_path / f'model.ncnn{suffix}')
        changed = metadata | {'classes': classes, 'resize': metadata['resize'] | resize}
        written = json.dumps(changed).replace('/', r'\/')
        (tmp_path / 'model.ncnn.json').write_text(written)
        words = [example, tmp_path / 'model.ncnn.param', photo, tmp_path / 'drawn.png']
        return subprocess.run(words, capture_output=True, text=True).stdout

    exact = run(image)
    assert run(image, ['\a"\\/\n1', *metadata['classes'][1:]]) == exact.replace('disk', ' "\\/ 1')
    halved = run(image, scale=None, scale_factor=0.5)
    assert halved == run(image, scale=[64, 64]) != exact
    thin = str(tmp_path / 'thin.png')
    mmcv.imwrite(mmcv.imresize(mmcv.imread(image), (2560, 2)), thin)
    assert run(thin).endswith(f'wrote {tmp_path}/drawn.png\n')


def test_the_example_refuses_wrong_files(example, made, image, tmp_path):
    photo, link, drawn = (tmp_path / name for name in ('photo.png', 'link.png', 'drawn.png'))
    shutil.copy(image, photo)
    link.symlink_to(photo)
    absent, part, bare = (tmp_path / f'{name}.ncnn.param' for name in ('absent', 'part', 'bare'))
    part.write_bytes(made.file.read_bytes()[:9000])
    shutil.copy(made.file, bare)
    for model in (part, bare):
        shutil.copy(made.file.with_suffix('.json'), model.with_suffix('.json'))
    for words, sentence in [
        ((absent, photo, drawn), f'{absent.with_suffix(".json")} is missing or not that of a'),
        ((part, photo, drawn), f'{part} or its .bin file is not one that ncnn can read'),
        ((bare, photo, drawn), f'{bare} or its .bin file is not one that ncnn can read'),
        ((made.file, tmp_path / 'none.png', drawn), f'{tmp_path}/none.png is not an image'),
        ((made.file, photo, tmp_path / 'drawn'), f'{tmp_path}/drawn cannot be written'),
        ((made.file, photo, link), f'{link} is the photo'),
        ((made.file, link, photo), f'{photo} is the photo'),
    ]:
        done = subprocess.run([example, *words], capture_output=True, text=True)
        assert done.returncode == 2
        assert f'error: {sentence}' in done.stderr
    assert photo.read_bytes() == Path(image).read_bytes()


class Windows(nn.Module):
    """An operator of rank 6."""

    def forward(self, x):
        return x.reshape(1, 3, 2, 4, 2, 4).permute(0, 1, 2, 4, 3, 5)


def test_what_ncnn_lacks_is_refused(tmp_path):
    subject = Subject(Windows(), ['map'], (8, 8))
    with pytest.raises(UserError, match=r'(?s)layer Tensor.reshape not .* operator that ncnn'):
        export_subject(subject, tmp_path / 'model.ncnn.param')
    assert list(tmp_path.iterdir()) == []


class Backbones(nn.Module):
    """Several backbones of random weights, folded, and all their levels in one tuple."""

    def __init__(self, families):
        super().__init__()
        self.backbones = nn.ModuleList(family(MINIATURES[family]).eval() for family in families)
        for backbone in self.backbones:
            randomise_vectors(backbone)
            backbone.switch_to_deploy()

    def forward(self, x):
        return tuple(level for backbone in self.backbones for level in backbone(x))


# EdgeViT is in the detector above; RepViT is convolutions, and ShuffleDeiT a part of ShuffleT2TViT.
def test_other_families(tmp_path):
    backbones = Backbones([MobileViT, EfficientViT, ShuffleSwin, ShuffleT2TViT]).eval()
    names = [f'level{i}' for i in range(4 + 3 + 4 + 4)]
    # The sides are not multiples of strides and windows.
    done = export_subject(Subject(backbones, names, (68, 150)), tmp_path / 'backbone.ncnn.param')
    assert done.outputs == names
    assert done.deviation < 1e-4


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(3, 4, 3, 2**i, 1) for i in range(12))

    def forward(self, x):
        return tuple(stage(x) for stage in self.stages)


def test_maps_keep_their_order(tmp_path):
    names = [f'level{i}' for i in range(12)]
    done = export_subject(Subject(Pyramid(), names, (64, 96)), tmp_path / 'pyramid.ncnn.param')
    assert done.outputs == names
    assert done.deviation < 1e-4
