"""Outputs of exported files in onnxruntime and OpenVINO equal those of PyTorch."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from helpers.repository import REPOSITORY, run_tool
from helpers.variants import MINIATURES, TINY, randomise_norms
from torch import nn

from lightvit_mm.backbones import EdgeViT
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.predicting import predict
from lightvit_mm.errors import UserError
from lightvit_mm.export.exporting import export, export_subject
from lightvit_mm.export.modules import Preprocessing
from lightvit_mm.export.subject import Subject
from lightvit_mm.runtimes.openvino import OpenvinoSession

SEGMENTOR = str(REPOSITORY / 'configs/semantic_fpn_repvit_m0_6_ade20k.py')
FIXED_SIZE = str(REPOSITORY / 'configs/semantic_fpn_efficientvit_m0_ade20k.py')
DETECTOR = str(REPOSITORY / 'configs/retinanet_repvit_m0_6_shapes.py')


@pytest.fixture
def onnxruntime():
    for name in ('onnx', 'onnxscript'):
        pytest.importorskip(name, reason='export needs it: pip install -e ".[onnx]"')
    return pytest.importorskip('onnxruntime', reason='not installed: pip install -e ".[onnx]"')


def save_segmentor(config, file):
    """Write a checkpoint as training would."""
    from mmseg.apis import init_model

    torch.manual_seed(0)
    model = init_model(load_config(config), device='cpu')
    randomise_norms(model)
    meta = {'dataset_meta': {'classes': ['thing'] * 150, 'palette': [[0, 0, 0]] * 150}}
    torch.save({'meta': meta, 'state_dict': model.state_dict()}, file)
    return file


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory):
    return save_segmentor(SEGMENTOR, tmp_path_factory.mktemp('segmentor') / 'iter_1.pth')


def deployed(family, arch):
    model = family(arch=arch).eval()
    randomise_norms(model)
    return model.switch_to_deploy()


@pytest.mark.slow
@pytest.mark.parametrize(('family', 'arch'), TINY)
def test_every_family(onnxruntime, family, arch, tmp_path):
    model = deployed(family, arch)
    names = [f'level{i}' for i in range(len(model.out_channels))]
    made = export_subject(Subject(model, names, (64, 96)), tmp_path / 'backbone.onnx')
    assert [compared.shape for compared in made.checked] == [(1, 3, 64, 96)]
    assert made.deviation < 1e-4
    # The same comparison, independent of the package.
    session = onnxruntime.InferenceSession(made.file)
    image = np.random.default_rng(1).normal(size=(1, 3, 64, 96)).astype('float32')
    with torch.no_grad():
        expected = model(torch.from_numpy(image))
    assert [output.name for output in session.get_outputs()] == names
    runs = [session.run(None, {'image': image})]
    if importlib.util.find_spec('openvino'):
        runs.append(OpenvinoSession(made.file).run(image).values())
    for outputs in runs:
        for output, level in zip(outputs, expected, strict=True):
            assert np.abs(output - level.numpy()).max() < 1e-4 * level.std()
    assert list(tmp_path.iterdir()) == [made.file]


class Product(nn.Module):
    def forward(self, x):
        rows, columns = x[0], x[0].sin()
        return (rows @ columns.transpose(1, 2)).transpose(1, 2)


def test_products_are_not_transposed_afterwards(onnxruntime, tmp_path):
    import onnx

    subject = Subject(Product(), ['product'], (8, 4))
    made = export_subject(subject, tmp_path / 'product.onnx')
    assert made.deviation < 1e-5
    kinds = [node.op_type for node in onnx.load(made.file).graph.node]
    assert kinds.count('Transpose') == 1
    assert kinds[-1] == 'MatMul'


def test_preprocessing_is_that_of_openmmlab():
    from mmdet.models import DetDataPreprocessor

    settings = {'mean': [1.0, 20.0, 300.0], 'std': [2.0, 3.0, 4.0], 'bgr_to_rgb': True}
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    expected = DetDataPreprocessor(**settings)({'inputs': [image]})['inputs']
    ours = Preprocessing(nn.Identity(), settings)(image[None].float())
    torch.testing.assert_close(ours, expected)
    kept = Preprocessing(nn.Identity(), {})(image[None].float())
    assert torch.equal(kept, image[None].float())


@pytest.fixture(scope='module')
def segmentor_file(segmentor, tmp_path_factory):
    """Its ONNX file, and the output of the tool."""
    out = tmp_path_factory.mktemp('onnx') / 'made' / 'segmentor.onnx'
    image = REPOSITORY / 'docs/images'
    image = next(file for file in sorted(image.iterdir()) if file.suffix in ('.png', '.jpg'))
    done = run_tool(
        'tools/export.py', SEGMENTOR, segmentor, out, '--size', '64', '96', '--image', image
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out, done.stdout


@pytest.mark.slow
def test_cli_exports_a_segmentor(onnxruntime, segmentor, segmentor_file):
    out, said = segmentor_file
    assert said.count('compared with PyTorch at 1x3x64x96') == 2
    assert f'{out}: outputs logits; largest deviation' in said
    session = onnxruntime.InferenceSession(out)
    (logits,) = session.run(None, {'image': np.zeros((1, 3, 64, 96), 'float32')})
    assert logits.shape == (1, 150, 64, 96)

    from mmseg.apis import inference_model, init_model

    # An image of that size passes through the config's own pipeline unchanged.
    config = load_config(SEGMENTOR)
    for step in config.test_pipeline:
        if step['type'] == 'Resize':
            step['scale'] = (96, 64)
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    sample = inference_model(init_model(config, str(segmentor), device='cpu'), picture)
    (logits,) = session.run(None, {'image': picture[None].transpose(0, 3, 1, 2).astype('float32')})
    expected = sample.seg_logits.data.numpy()
    assert np.abs(logits[0] - expected).max() < 1e-3 * expected.std()


@pytest.mark.slow
def test_predictions_of_a_segmentor(onnxruntime, segmentor, segmentor_file, tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    rng = np.random.default_rng(1)
    # The first has the size of the file; the second is padded, unlike with its config.
    for name, size in (('same', (64, 96, 3)), ('narrow', (64, 50, 3))):
        mmcv.imwrite(rng.integers(0, 256, size, dtype=np.uint8), str(images / f'{name}.png'))
    entries = []
    for checkpoint in (segmentor, segmentor_file[0]):
        config = load_config(SEGMENTOR)
        # ONNX files have a fixed scale.
        if checkpoint == segmentor:
            config.test_pipeline[1].scale = (96, 64)
        made = predict(config, str(checkpoint), str(images), str(tmp_path / checkpoint.suffix))
        content = json.loads(made.json_file.read_text())['images']
        entries.append({Path(entry['file']).stem: entry for entry in content})
        assert all(mmcv.imread(picture) is not None for picture in made.pictures)
    ours, theirs = (mmcv.imread(entry['same']['label_map'], 'unchanged') for entry in entries)
    # Rounding may change the class of single pixels.
    assert (ours == theirs).mean() > 0.999
    assert len(np.unique(ours)) > 1
    assert [s['class'] for s in entries[0]['same']['segments']] == [
        s['class'] for s in entries[1]['same']['segments']
    ]
    assert mmcv.imread(entries[1]['narrow']['label_map'], 'unchanged').shape == (64, 50)


@pytest.mark.slow
def test_diverged_weights_are_an_error_and_the_older_file_stays(onnxruntime, segmentor, tmp_path):
    content = torch.load(segmentor)
    content['state_dict']['backbone.stem.conv1.conv.weight'][:] = 3e38
    torch.save(content, diverged := tmp_path / 'diverged.pth')
    out = tmp_path / 'made' / 'backbone.onnx'
    out.parent.mkdir()
    older = b'\x08\n\x12\x07pytorch, an older export by lightvit_mm'
    out.write_bytes(older)
    config = load_config(SEGMENTOR)
    with pytest.raises(UserError, match='deviates from PyTorch by nan'):
        export(config, str(diverged), str(out), (32, 32), backbone_only=True)
    assert out.read_bytes() == older
    assert list(out.parent.iterdir()) == [out]


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


@pytest.mark.parametrize(
    ('module', 'pictures', 'said'),
    [
        (Noise(), (), 'deviates from PyTorch by [0-9.]+e'),
        # A file with a fixed size does not run on an image of another size.
        (nn.Conv2d(3, 4, 3), [np.zeros((1, 3, 9, 8), 'f4')], r'fails on \(1, 3, 9, 8\): .*Nothing'),
    ],
    ids=['deviates', 'does not run'],
)
def test_a_failed_export_leaves_the_older_file(onnxruntime, tmp_path, module, pictures, said):
    out = tmp_path / 'model.onnx'
    out.write_text('an older export')
    with pytest.raises(UserError, match=f'(?s){said}'):
        export_subject(Subject(module, ['map'], (8, 8), pictures=pictures), out)
    assert out.read_text() == 'an older export'
    assert list(tmp_path.iterdir()) == [out]


def test_an_export_replaces_an_export_and_nothing_else(onnxruntime, tmp_path, monkeypatch):
    out, weights = tmp_path / 'model.onnx', tmp_path / 'a.pth'
    config = load_config(SEGMENTOR)
    monkeypatch.setattr(
        'lightvit_mm.engine.trained_model.load_model', lambda *_: pytest.fail('work')
    )
    weights.write_bytes(b'PK weights')
    (tmp_path / 'other.onnx').write_bytes(b'notes')
    (tmp_path / 'folder.onnx').mkdir()
    before = sorted(tmp_path.iterdir())
    for place, said in (
        (weights, 'a.pth: its suffix says the format, and must be one of .onnx'),
        (tmp_path / 'folder.onnx', 'is a folder'),
        (tmp_path / 'other.onnx', 'nothing shows that this tool wrote it'),
        (weights / 'model.onnx', 'cannot be written'),
    ):
        with pytest.raises(UserError, match=said):
            export(config, str(weights), str(place), (64, 64))
    assert weights.read_bytes() == b'PK weights'
    (tmp_path / 'model.int8.onnx').write_bytes(b'notes')
    with pytest.raises(UserError, match=r'model\.int8\.onnx exists'):
        export(config, str(weights), str(out), (64, 64), quantize=str(tmp_path))
    (tmp_path / 'model.int8.onnx').unlink()
    with pytest.raises(UserError, match='--quantize is empty: give a folder of images'):
        export(config, str(weights), str(out), (64, 64), quantize='')
    foreign = Subject(nn.Identity(), ['same'], (8, 8))
    export_subject(foreign, out)
    with pytest.raises(UserError, match='nothing in it shows that this tool wrote it'):
        export(config, str(weights), str(out), (64, 64))
    out.unlink()
    export_subject(replace(foreign, metadata={'task': 'backbone'}), out)
    made = out.read_bytes()
    # Far enough to see that the place is accepted.
    with pytest.raises(UserError, match=r'^--image .*absent\.png'):
        export(config, str(weights), str(out), (64, 64), images=['absent.png'])
    assert out.read_bytes() == made
    assert sorted(tmp_path.iterdir()) == sorted([*before, out])


def test_refusals(onnxruntime, tmp_path, monkeypatch):
    out = str(tmp_path / 'model.onnx')
    with pytest.raises(UserError, match=r'RetinaNet: a whole detector .* give --image'):
        export(load_config(DETECTOR), 'none.pth', out, (64, 64))
    sliding = load_config(SEGMENTOR, {'model.test_cfg.mode': 'slide'})
    with pytest.raises(UserError, match=r'model\.test_cfg\.mode=whole'):
        export(sliding, 'none.pth', out, (64, 64))
    with pytest.raises(UserError, match=r'--image .*absent\.png does not exist'):
        export(sliding, 'none.pth', out, (64, 64), images=['absent.png'])
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images/empty.png').touch()
    with pytest.raises(UserError, match=r'--quantize .*empty\.png is not an image'):
        export(load_config(SEGMENTOR), 'none.pth', out, (64, 64), quantize=f'{tmp_path}/images')
    with pytest.raises(UserError, match=r'--image .*empty\.png is not an image'):
        empty = f'{tmp_path}/images/empty.png'
        export(load_config(SEGMENTOR), 'none.pth', out, (64, 64), images=[empty])
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(UserError, match='onnxscript is needed and not installed here: pip'):
        export(sliding, 'none.pth', out, (64, 64))
    assert list(tmp_path.iterdir()) == [tmp_path / 'images']


@pytest.mark.slow
def test_dynamic_at_several_sizes(onnxruntime, tmp_path):
    model = deployed(EdgeViT, MINIATURES[EdgeViT])
    names = [f'level{i}' for i in range(4)]
    made = export_subject(Subject(model, names, (64, 96), True, 2), tmp_path / 'backbone.onnx')
    assert [compared.shape[2:] for compared in made.checked] == [(64, 96), (96, 64), (128, 128)]
    assert made.deviation < 1e-4
    session = onnxruntime.InferenceSession(made.file)
    images = np.random.default_rng(1).normal(size=(3, 3, 32, 160)).astype('float32')
    with torch.no_grad():
        expected = model(torch.from_numpy(images))
    for output, level in zip(session.run(None, {'image': images}), expected, strict=True):
        assert np.abs(output - level.numpy()).max() < 1e-4 * level.std()


def test_dynamic_is_refused_where_it_would_be_wrong(onnxruntime, tmp_path):
    out = str(tmp_path / 'model.onnx')
    config = load_config(SEGMENTOR)
    with pytest.raises(UserError, match=r'multiples of 32.*not 64 100'):
        export(config, 'none.pth', out, (64, 100), dynamic=True)
    with pytest.raises(UserError, match='segmentors cannot be exported with --dynamic'):
        export(config, 'none.pth', out, (64, 96), dynamic=True)
    checkpoint = str(save_segmentor(FIXED_SIZE, tmp_path / 'iter_1.pth'))
    with pytest.raises(UserError, match='EfficientViT cannot be exported with --dynamic'):
        export(load_config(FIXED_SIZE), checkpoint, out, (64, 96), dynamic=True, backbone_only=True)
