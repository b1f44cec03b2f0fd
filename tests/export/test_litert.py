"""LiteRT files; the tests run by ``tools/test.sh --runtimes``, which installs the converter."""

import json
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from helpers.bare import link_packages, run_bare
from helpers.detectors import CLASSES, random_detector, save_detector
from helpers.repository import REPOSITORY
from torch import nn

from lightvit_mm.backbones.create import create_backbone
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.predicting import predict
from lightvit_mm.export.compare import shared_detections
from lightvit_mm.export.exporting import export, export_subject
from lightvit_mm.export.litert import quantize
from lightvit_mm.export.subject import Subject
from lightvit_mm.runtimes.session import open_file

pytestmark = pytest.mark.runtimes
RETINANET = str(REPOSITORY / 'configs/retinanet_repvit_m0_6_shapes.py')
EXAMPLE = REPOSITORY / 'examples/detect_litert.py'


@pytest.fixture(scope='module')
def images(shapes):
    return [str(file) for file in sorted((shapes / 'images/val').glob('*.png'))]


@pytest.fixture(scope='module')
def made(images, tmp_path_factory):
    """An exported detector, beside its checkpoint."""
    folder = tmp_path_factory.mktemp('litert')
    torch.manual_seed(0)
    checkpoint = save_detector(random_detector(load_config(RETINANET)), folder / 'epoch_1.pth')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # the converter runs elsewhere
        made = export(
            load_config(RETINANET), checkpoint, 'model.tflite', (128, 128),
            images=images[:1], quantize=images[1],
        )  # fmt: skip
    made.file, made.int8.file = folder / made.file, folder / made.int8.file
    return made


def test_equals_pytorch(made):
    assert made.outputs == ['boxes', 'scores', 'labels']
    assert made.deviation < 1e-4
    assert made.checked[1].detections > 20


def test_metadata(made):
    kept = open_file(made.file).metadata
    assert (kept['task'], kept['size'], kept['precision']) == ('detection', [128, 128], 'fp32')
    assert kept['classes'] == list(CLASSES)
    assert open_file(made.int8.file).metadata == kept | {'precision': 'int8'}
    with zipfile.ZipFile(made.file) as archive:
        assert json.loads(archive.read('lightvit_mm.json')) == kept


def test_eight_bits(made, images):
    assert made.int8.layers > 50
    assert made.int8.file.stat().st_size < 0.5 * made.file.stat().st_size
    image = mmcv.imread(images[0]).transpose(2, 0, 1)[None].astype('float32')
    scores = [open_file(file).run(image)['scores'] for file in (made.file, made.int8.file)]
    assert np.abs(scores[0][:10] - scores[1][:10]).max() < 0.2


def test_full_integer(made, images, tmp_path):
    subject = Subject(
        nn.Identity(), made.outputs, (128, 128), metadata=open_file(made.file).metadata,
        full_integer=True, calibration=[Path(images[1])],
    )  # fmt: skip
    file = tmp_path / 'model.tflite'
    assert quantize(subject, made.file, file) == made.int8.layers
    image = mmcv.imread(images[0]).transpose(2, 0, 1)[None].astype('float32')
    exact, found = (open_file(path).run(image) for path in (made.file, file))
    assert shared_detections(exact, found) > 0.6
    # What remains are the six last layers, the boxes, and the image before it is quantised.
    counts = [floats(path) for path in (made.file, made.int8.file, file)]
    assert counts[2] < 60 < counts[1] < counts[0]


def floats(file):
    """Number of operations that make floating-point numbers."""
    from ai_edge_litert import schema_py_generated

    model = schema_py_generated.ModelT.InitFromPackedBuf(file.read_bytes(), 0)
    graph = model.subgraphs[0]
    kinds = [graph.tensors[operator.outputs[0]].type for operator in graph.operators]
    return kinds.count(schema_py_generated.TensorType.FLOAT32)


def test_a_pyramid_keeps_the_order_of_its_levels(tmp_path):
    backbone = create_backbone('repvit_m0_6', pretrained=False).eval().switch_to_deploy()
    names = [f'level{i}' for i in range(4)]
    done = export_subject(Subject(backbone, names, (64, 96)), tmp_path / 'pyramid.tflite')
    assert done.outputs == names
    assert done.deviation < 1e-4


# The width of the second becomes 94.5.
@pytest.mark.parametrize('shape', [(100, 128), (256, 189)])
def test_the_example_needs_nothing_else(made, images, shape, tmp_path):
    photo, drawn, bare = tmp_path / 'in/photo.png', tmp_path / 'drawn.png', tmp_path / 'bare'
    whole = mmcv.imresize(mmcv.imread(images[0]), (max(128, shape[0]),) * 2)
    mmcv.imwrite(whole[: shape[0], : shape[1]], str(photo))
    bare.mkdir()
    link_packages(bare, ['numpy', 'opencv-python', 'ai-edge-litert'])
    assert 'No module named' in run_bare(bare, '-c', 'import torch').stderr
    done = run_bare(bare, EXAMPLE, made.file, photo, drawn)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert last == f'wrote {drawn}'
    # The tool's own predictions by the same file.
    out = predict(load_config(RETINANET), str(made.file), str(photo), str(tmp_path / 'out'))
    (entry,) = json.loads(out.json_file.read_text())['images']
    expected = [d for d in entry['detections'] if d['score'] >= 0.3]
    assert len(lines) == len(expected) > 5
    for line, detection in zip(lines, expected, strict=True):
        name, score, *box = line.split()
        assert name == detection['class']
        assert [float(score), *map(float, box)] == pytest.approx(
            [detection['score'], *detection['box_xyxy']], abs=0.06
        )
    assert (mmcv.imread(str(drawn)) != mmcv.imread(str(photo))).any()


def test_the_example_shrinks_by_a_factor():
    fit = runpy.run_path(str(EXAMPLE))['fit']
    resize = {'scale': None, 'scale_factor': 0.5, 'keep_ratio': True, 'pad': [0, 0, 0]}
    rule = {'size': [128, 128], 'resize': resize}
    assert fit(np.zeros((2, 2560, 3), 'uint8'), rule)[1] == (128, 1)
    assert fit(np.zeros((100, 126, 3), 'uint8'), rule)[1] == (63, 50)


def test_the_example_refuses_wrong_files(made, images, tmp_path):
    photo, link, drawn = (tmp_path / name for name in ('photo.png', 'link.png', 'drawn.png'))
    shutil.copy(images[0], photo)
    link.symlink_to(photo)
    absent, part, foreign = (tmp_path / f'{n}.tflite' for n in ('absent', 'part', 'foreign'))
    part.write_bytes(made.file.read_bytes()[:100_000])
    with zipfile.ZipFile(foreign, 'w') as archive:
        archive.writestr('notes.txt', 'no model')
    for words, sentence in [
        ((absent, photo, drawn), f'{absent} is not a detector that'),
        ((part, photo, drawn), f'{part} is not a detector that'),
        ((foreign, photo, drawn), f'{foreign} is not a file that LiteRT can run'),
        ((made.file, photo, tmp_path / 'drawn'), f'{tmp_path}/drawn needs the suffix'),
        ((made.file, photo, link), f'{link} is the photo'),
        ((made.file, link, photo), f'{photo} is the photo'),
    ]:
        done = subprocess.run([sys.executable, EXAMPLE, *words], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, '')
        assert f'error: {sentence}' in done.stderr
    assert photo.read_bytes() == Path(images[0]).read_bytes()
