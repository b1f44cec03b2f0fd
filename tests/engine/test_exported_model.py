"""Whole detectors: exported, run in place of the PyTorch model, and in 8 bits."""

import io
import json
import re
import runpy
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from helpers.bare import link_packages, run_bare
from helpers.detectors import SMALL_MASK_RCNN, random_detector
from helpers.repository import REPOSITORY
from helpers.small_data import ARCH
from mmengine.config import ConfigDict
from mmengine.fileio import load
from torch import nn

from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.exported_model import ExportedModel, fit_pipeline, load_exported
from lightvit_mm.engine.predicting import predict
from lightvit_mm.engine.running import test as evaluate
from lightvit_mm.errors import UserError
from lightvit_mm.export.compare import Compared, Limits, compare_detections
from lightvit_mm.export.exporting import export, export_subject
from lightvit_mm.export.subject import Subject, build_subject
from lightvit_mm.runtimes.images import fit_image
from lightvit_mm.runtimes.openvino import OpenvinoSession
from lightvit_mm.runtimes.session import open_file

pytestmark = pytest.mark.slow
onnx, *_ = (
    pytest.importorskip(name, reason='not installed: pip install -e ".[openvino]"')
    for name in ('onnx', 'onnxscript', 'onnxruntime', 'openvino')
)

RETINANET = str(REPOSITORY / 'configs/retinanet_repvit_m0_6_shapes.py')
RTMDET = str(REPOSITORY / 'configs/rtmdet_edgevit_xxs_coco.py')
MASK_RCNN = str(REPOSITORY / 'configs/mask_rcnn_edgevit_xxs_coco.py')
CLASSES = ('disk', 'square', 'triangle', 'star')
LIMITS = Limits(0.05, 0.5, 100)
ONE_PROCESS = {'test_dataloader.num_workers': 0, 'test_dataloader.persistent_workers': False}


def save(model, file):
    meta = {'dataset_meta': {'classes': CLASSES, 'palette': [(0, 0, 255)] * 4}}
    torch.save({'meta': meta, 'state_dict': model.state_dict()}, file)
    return str(file)


@pytest.fixture(scope='module')
def images(shapes):
    return [str(file) for file in sorted((shapes / 'images/val').glob('*.png'))]


@pytest.fixture(scope='module')
def retinanet(images, tmp_path_factory):
    """A checkpoint, its export with dynamic sizes by the tool, and the output of the tool."""
    folder = tmp_path_factory.mktemp('retinanet')
    torch.manual_seed(0)
    checkpoint = save(random_detector(load_config(RETINANET)), folder / 'epoch_1.pth')
    out = folder / 'model.onnx'
    arguments = [RETINANET, checkpoint, str(out), '--size', '128', '96', '--dynamic']
    arguments += ['--image', images[0], '--quantize', images[1]]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr('sys.argv', ['export.py', *arguments])
        patch.syspath_prepend(REPOSITORY / 'tools')
        runpy.run_path(str(REPOSITORY / 'tools/export.py'), run_name='__main__')
    return checkpoint, out, said.getvalue()


def arrays(entry):
    """Detections of predictions.json, as `compare_detections` takes them."""
    found = entry['detections']
    return {
        'boxes': np.array([d['box_xyxy'] for d in found]).reshape(-1, 4),
        'scores': np.array([d['score'] for d in found]),
        'labels': np.array([d['label'] for d in found]),
    }


def rewritten(file, folder, **metadata):
    """A copy of an ONNX file with other metadata."""
    model = onnx.load(file)
    kept = {prop.key: prop.value for prop in model.metadata_props}
    made = json.loads(kept['lightvit_mm']) | metadata
    onnx.helper.set_model_props(model, {'lightvit_mm': json.dumps(made)})
    onnx.save(model, folder / 'rewritten.onnx')
    return str(folder / 'rewritten.onnx')


def predictions(config, checkpoint, source, out):
    made = predict(load_config(config), checkpoint, str(source), str(out))
    assert len(made.pictures) == len(list(source.iterdir()))
    assert all(mmcv.imread(picture) is not None for picture in made.pictures)
    return json.loads(made.json_file.read_text())['images']


def test_export_says_what_it_compared(retinanet):
    _, out, said = retinanet
    compared = re.findall(r'at 1x3x(\d+x\d+): (\d+) detections, (\S+)', said)
    assert [size for size, _, _ in compared] == ['128x96', '96x128', '192x128'] * 2
    assert all(int(count) > 20 and float(deviation) < 1e-4 for _, count, deviation in compared)
    assert f'{out}: outputs boxes, scores, labels; largest deviation' in said


def test_predictions_and_evaluation_are_those_of_the_checkpoint(
    retinanet, images, shapes, tmp_path
):
    checkpoint, out, _ = retinanet
    source = tmp_path / 'images'
    source.mkdir()
    picture = mmcv.imread(images[0])
    mmcv.imwrite(picture, str(source / 'one.png'))
    mmcv.imwrite(mmcv.imread(images[1])[:50, :100], str(source / 'resized.png'))
    theirs = predictions(RETINANET, checkpoint, source, tmp_path / 'pth')
    ours = predictions(RETINANET, str(out), source, tmp_path / 'onnx')
    for a, b in zip(theirs, ours, strict=True):
        assert (a['file'], a['width'], a['height']) == (b['file'], b['width'], b['height'])
        deviation, pairs = compare_detections(arrays(a), arrays(b), 128, LIMITS)
        assert deviation < 1e-4
        assert pairs > 20
        assert {d['class'] for d in b['detections']} <= set(CLASSES)
    # The same file in tools/test.py.
    config = load_config(
        RETINANET,
        ONE_PROCESS,
        data_root=str(shapes),
        work_dir=str(tmp_path / 'work'),
    )
    metrics = evaluate(config, str(out), out=str(tmp_path / 'kept.pkl'))
    assert 'coco/bbox_mAP' in metrics
    kept = load(str(tmp_path / 'kept.pkl'))
    kept = next(k for k in kept if k['img_path'].endswith(images[0].rsplit('/', 1)[1]))
    found = kept['pred_instances']
    names = {'boxes': 'bboxes', 'scores': 'scores', 'labels': 'labels'}
    found = {ours: found[theirs].numpy() for ours, theirs in names.items()}
    assert compare_detections(arrays(theirs[0]), found, 128, LIMITS) < (1e-4,)


def test_eight_bits(retinanet):
    _, out, said = retinanet
    int8 = out.with_name('model.int8.onnx')
    layers = re.search(rf'{int8}: (\d+) layers in 8 bits, ranges from 1 images; .* ms', said)
    assert int(layers[1]) > 50
    assert int8.stat().st_size < 0.5 * out.stat().st_size
    assert {p.name for p in out.parent.iterdir()} == {'epoch_1.pth', out.name, int8.name}
    session = load_exported(load_config(RETINANET), str(int8)).session
    image = np.full((1, 3, 64, 64), 128, 'float32')
    boxes, scores, labels = session.run(image).values()
    assert len(boxes) == len(scores) == len(labels) > 0


@pytest.fixture(scope='module')
def openvino_made(retinanet, images, tmp_path_factory):
    """The export of the same checkpoint to OpenVINO."""
    out = tmp_path_factory.mktemp('openvino') / 'made/model.xml'
    return export(
        load_config(RETINANET), retinanet[0], str(out), (128, 128), images=images[:1],
        quantize=images[1],
    )  # fmt: skip


def test_openvino(retinanet, openvino_made, images, tmp_path):
    checkpoint, made, out = retinanet[0], openvino_made, openvino_made.file
    assert made.deviation < 1e-5
    assert made.checked[1].detections > 20
    assert made.int8.layers > 50
    assert made.int8.agreement > 0.6
    files = {file.name: file.stat().st_size for file in out.parent.iterdir()}
    assert set(files) == {'model.xml', 'model.bin', 'model.int8.xml', 'model.int8.bin'}
    assert files['model.int8.bin'] < 0.5 * files['model.bin']
    source = tmp_path / 'images'
    source.mkdir()
    mmcv.imwrite(mmcv.imread(images[0]), str(source / 'one.png'))
    (theirs,) = predictions(RETINANET, checkpoint, source, tmp_path / 'pth')
    (ours,) = predictions(RETINANET, str(out), source, tmp_path / 'xml')
    deviation, pairs = compare_detections(arrays(theirs), arrays(ours), 128, LIMITS)
    assert deviation < 1e-5
    assert pairs > 20
    int8 = load_exported(load_config(RETINANET), str(made.int8.file))
    assert int8.dataset_meta['classes'] == CLASSES
    made = int8.session.metadata
    assert (made['task'], made['precision'], made['size']) == ('detection', 'int8', [128, 128])
    assert made['resize']['keep_ratio']
    assert (made['score_thr'], made['iou_threshold'], made['max_per_img']) == (0.05, 0.5, 100)


def test_an_eight_bit_file_that_disagrees_is_not_written(retinanet, images, tmp_path):
    """One channel needs the whole range of 8 bits; without rounding, the network is the same."""
    content, out = torch.load(retinanet[0]), tmp_path / 'made/model.onnx'
    weights = content['state_dict']
    weights['bbox_head.cls_convs.1.conv.weight'][0] *= 1e5
    weights['bbox_head.cls_convs.1.conv.bias'][0] *= 1e5
    weights['bbox_head.retina_cls.weight'][:, 0] *= 1e-5
    torch.save(content, tmp_path / 'epoch_1.pth')
    with pytest.raises(UserError, match=r'agrees with PyTorch only to \d+%, so .*int8\.onnx was n'):
        export(
            load_config(RETINANET), str(tmp_path / 'epoch_1.pth'), str(out), (64, 64),
            images=images[:1], quantize=images[1],
        )  # fmt: skip
    assert [file.name for file in out.parent.iterdir()] == ['model.onnx']


def test_the_second_file_of_another_is_not_replaced(tmp_path):
    (tmp_path / 'model.bin').write_text('notes')
    with pytest.raises(UserError, match=r'model\.bin, which belongs to it, exists already'):
        export(load_config(RETINANET), 'none.pth', str(tmp_path / 'model.xml'), (128, 128))
    assert [file.name for file in tmp_path.iterdir()] == ['model.bin']


def check_lines(lines, detections):
    """Compare the boxes that an example prints with those of tools/predict.py."""
    expected = [d for d in detections if d['score'] >= 0.3]
    assert len(lines) == len(expected) > 5
    for line, detection in zip(lines, expected, strict=True):
        name, score, *box = line.rsplit(' ', 5)
        assert name == ' '.join(detection['class'].split())
        assert [float(score), *map(float, box)] == pytest.approx(
            [detection['score'], *detection['box_xyxy']], abs=0.06
        )


@pytest.mark.parametrize(('runtime', 'width'), [('onnxruntime', 96), ('openvino', 128)])
def test_examples_need_nothing_else(runtime, width, retinanet, openvino_made, images, tmp_path):
    photo = tmp_path / 'in/photo.png'
    mmcv.imwrite(mmcv.imread(images[0])[:, :width], str(photo))
    (expected,) = predictions(RETINANET, retinanet[0], photo.parent, tmp_path / 'pth')
    bare = tmp_path / 'bare'
    bare.mkdir()
    link_packages(bare, ['numpy', 'opencv-python', runtime])
    assert 'No module named' in run_bare(bare, '-c', 'import torch').stderr
    file = retinanet[1] if runtime == 'onnxruntime' else openvino_made.file
    script, drawn = REPOSITORY / f'examples/detect_{runtime}.py', tmp_path / 'drawn.png'
    done = run_bare(bare, script, file, photo, drawn)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert last == f'wrote {drawn}'
    check_lines(lines, expected['detections'])
    assert (mmcv.imread(drawn) != mmcv.imread(photo)).any()


def detect(runtime, *words):
    script = REPOSITORY / f'examples/detect_{runtime}.py'
    return subprocess.run([sys.executable, script, *words], capture_output=True, text=True)


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_examples_resize_as_the_pipeline(runtime, retinanet, openvino_made, images, tmp_path):
    photo, drawn = tmp_path / 'in/photo.png', tmp_path / 'drawn.png'
    # Its width becomes 94.5, and the class of some objects has a line break.
    mmcv.imwrite(mmcv.imresize(mmcv.imread(images[0]), (256, 256))[:, :189], str(photo))
    if runtime == 'onnxruntime':
        file, model = tmp_path / 'model.onnx', onnx.load(retinanet[1])
        (entry,) = (entry for entry in model.metadata_props if entry.key == 'lightvit_mm')
        entry.value = entry.value.replace('disk', r'a\n  disk')
        onnx.save(model, file)
    else:
        file = tmp_path / 'model.xml'
        shutil.copy(openvino_made.file.with_suffix('.bin'), tmp_path)
        file.write_text(openvino_made.file.read_text().replace('disk', r'a\n  disk'))
    (expected,) = predictions(RETINANET, str(file), photo.parent, tmp_path / 'out')
    assert 'a\n  disk' in {d['class'] for d in expected['detections'] if d['score'] >= 0.3}
    done = detect(runtime, file, photo, drawn)
    *lines, last = done.stdout.splitlines()
    assert last == f'wrote {drawn}', done.stderr
    check_lines(lines, expected['detections'])


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_examples_shrink_by_a_factor(runtime):
    fit = runpy.run_path(str(REPOSITORY / f'examples/detect_{runtime}.py'))['fit']
    resize = {'scale': None, 'scale_factor': 0.5, 'keep_ratio': True, 'pad': [0, 0, 0]}
    made = {'size': [128, 128], 'resize': resize}
    assert fit(np.zeros((2, 2560, 3), 'uint8'), made)[1] == (128, 1)
    assert fit(np.zeros((100, 126, 3), 'uint8'), made)[1] == (63, 50)


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_examples_refuse_wrong_files(runtime, retinanet, openvino_made, images, tmp_path):
    file = retinanet[1] if runtime == 'onnxruntime' else openvino_made.file
    photo, drawn, link = (tmp_path / name for name in ('photo.png', 'drawn.png', 'link.png'))
    shutil.copy(images[0], photo)
    link.symlink_to(photo)
    absent, foreign, part = (tmp_path / f'{n}{file.suffix}' for n in ('absent', 'foreign', 'part'))
    foreign.write_text('no model')
    # The whole .xml file, but without its .bin file.
    part.write_bytes(file.read_bytes()[: 100_000 if runtime == 'onnxruntime' else None])
    cases = [((model, photo, drawn), f'{model} is not a file') for model in (absent, foreign, part)]
    cases += [((file, photo, tmp_path / 'drawn'), 'drawn needs the suffix of an image')]
    cases += [((file, photo, link), 'link.png is the photo'), ((file, link, photo), 'is the photo')]
    for words, sentence in cases:
        done = detect(runtime, *words)
        assert (done.returncode, done.stdout) == (2, '')
        assert f'error: {tmp_path}' in done.stderr
        assert sentence in done.stderr
    assert photo.read_bytes() == Path(images[0]).read_bytes()


def test_boxes_in_the_padding_are_left_out(openvino_made, images, tmp_path):
    photo = tmp_path / 'in/photo.png'
    picture = mmcv.imread(images[0])[:, :30]
    mmcv.imwrite(picture, str(photo))
    inputs, _ = fit_image(picture, (128, 128), np.array([103.53, 116.28, 123.675], 'float32'))
    found = open_file(openvino_made.file).run(inputs)['boxes']
    outside = (found[:, 0] >= 30).sum()
    assert 5 < outside < len(found) - 5
    (entry,) = predictions(RETINANET, str(openvino_made.file), photo.parent, tmp_path / 'out')
    boxes = arrays(entry)['boxes']
    assert len(boxes) == len(found) - outside
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    drawn = tmp_path / 'drawn.png'
    done = detect('openvino', openvino_made.file, photo, drawn, '--score-thr', '0')
    assert len(done.stdout.splitlines()) == len(boxes) + 1


def test_mask_rcnn(images, tmp_path):
    options = {**SMALL_MASK_RCNN, 'test_dataloader.dataset.pipeline.1.scale': (128, 128)}
    checkpoint = save(random_detector(load_config(MASK_RCNN, options)), tmp_path / 'epoch_1.pth')
    out = tmp_path / 'model.onnx'
    made = export(
        load_config(MASK_RCNN, options), checkpoint, str(out), (128, 128), images=images[:1]
    )
    assert made.outputs == ['boxes', 'scores', 'labels', 'masks']
    assert [compared.detections > 20 for compared in made.checked] == [True, True]
    entries = []
    for weights in (checkpoint, str(out)):
        done = predict(load_config(MASK_RCNN, options), weights, images[0], str(tmp_path / 'out'))
        entries += json.loads(done.json_file.read_text())['images']
    assert compare_detections(arrays(entries[0]), arrays(entries[1]), 128, LIMITS) < (1e-4,)
    assert [d['mask'] for d in entries[0]['detections']] == [
        d['mask'] for d in entries[1]['detections']
    ]
    # No score is above a threshold, and no region is left for either head.
    nothing = np.full((1, 3, 128, 128), np.nan, 'float32')
    image = mmcv.imread(images[0]).transpose(2, 0, 1)[None].astype('float32')
    session, openvino = open_file(out), OpenvinoSession(out)
    empty = session.run(nothing).values()
    assert [value.shape for value in empty] == [(0, 4), (0,), (0,), (0, 28, 28)]
    deviation, pairs = compare_detections(session.run(image), openvino.run(image), 128, LIMITS)
    assert deviation < 1e-4
    assert pairs > 20


def small_rtmdet():
    config = load_config(RTMDET)
    config.model.backbone.arch = ARCH
    config.model.neck.in_channels = [8, 8, 8]
    config.model.bbox_head.num_classes = len(CLASSES)
    config.model.test_cfg.nms_pre = 500
    pipeline = config.test_dataloader.dataset.pipeline
    pipeline[1].scale = pipeline[2].size = (96, 96)
    return config


def test_rtmdet_pads_as_its_pipeline(images, tmp_path):
    checkpoint = save(random_detector(small_rtmdet()), tmp_path / 'epoch_1.pth')
    out = tmp_path / 'model.onnx'
    made = export(small_rtmdet(), checkpoint, str(out), (96, 96), images=images[:1])
    assert made.deviation < 1e-4
    narrow = str(tmp_path / 'narrow.png')
    mmcv.imwrite(mmcv.imread(images[1])[:, :50], narrow)
    entries = []
    for weights in (checkpoint, str(out)):
        done = predict(small_rtmdet(), weights, narrow, str(tmp_path / 'out'))
        entries += json.loads(done.json_file.read_text())['images']
    theirs, ours = map(arrays, entries)
    # After a Pad, mmdet lets boxes reach into the padding.
    theirs['boxes'] = theirs['boxes'].clip(0, [50, 128, 50, 128])
    inside = (theirs['boxes'][:, :2] < theirs['boxes'][:, 2:]).all(1)
    theirs = {name: values[inside] for name, values in theirs.items()}
    deviation, pairs = compare_detections(theirs, ours, 128, Limits(0.001, 0.65, 300))
    assert deviation < 1e-4
    assert pairs > 20


def test_wrong_files(retinanet, images, shapes, tmp_path):
    out = str(retinanet[1])
    with pytest.raises(UserError, match=r'absent\.onnx does not exist'):
        predict(load_config(RETINANET), 'absent.onnx', images[0], str(tmp_path))
    (tmp_path / 'broken.onnx').write_text('no graph')
    with pytest.raises(UserError, match=r'broken\.onnx is not a file that onnxruntime can'):
        predict(load_config(RETINANET), str(tmp_path / 'broken.onnx'), images[0], str(tmp_path))
    with pytest.raises(UserError, match='an exported file runs on the cpu'):
        predict(load_config(RETINANET), out, images[0], str(tmp_path), device='cuda:0')
    with pytest.raises(UserError, match='--tta needs a checkpoint'):
        config = load_config(RETINANET, data_root=str(shapes))
        evaluate(config, out, tta=True)
    model = onnx.load(out)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / 'bare.onnx')
    with pytest.raises(UserError, match=r'is not a file of tools/export\.py'):
        ExportedModel(str(tmp_path / 'bare.onnx'), {})
    with pytest.raises(UserError, match='is a detection file, and the config is one for segm'):
        ExportedModel(out, {'decode_head': {}})
    model.graph.input[0].name = 'x'
    for node in model.graph.node:
        node.input[:] = ['x' if name == 'image' else name for name in node.input]
    onnx.save(model, tmp_path / 'bare.onnx')
    with pytest.raises(UserError, match=r"its inputs are {'x': .*tools/export\.py"):
        open_file(tmp_path / 'bare.onnx')
    fewer = rewritten(out, tmp_path, classes=['disk', 'square'])
    with pytest.raises(
        UserError, match=r'trained on 2 classes \(disk, square\), these data have 4'
    ):
        evaluate(load_config(RETINANET, ONE_PROCESS, data_root=str(shapes)), fewer)


def test_the_order_of_classes(retinanet, shapes, tmp_path):
    turned = rewritten(retinanet[1], tmp_path, classes=CLASSES[::-1])
    evaluate(load_config(RETINANET, ONE_PROCESS, str(shapes), str(tmp_path / 'work')), turned)
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert 'it was trained on 4 classes (star, triangle, square, disk), these data have 4' in log


def test_the_rule_for_resizing(retinanet):
    pipeline = [{'type': 'Resize', 'scale': 128, 'keep_ratio': True}]
    assert fit_pipeline(pipeline, (64, 96)) is None
    assert pipeline[0]['scale'] == (96, 64)
    config = load_config(RETINANET)
    config.test_dataloader.dataset.pipeline[1] = ConfigDict(type='Resize', scale_factor=0.5)
    made = build_subject(config, retinanet[0], (64, 64), backbone_only=True).metadata['resize']
    assert (made['scale'], made['scale_factor'], made['keep_ratio']) == (None, 0.5, True)
    config.test_dataloader.dataset.pipeline[1].scale_factor = (0.5, 2.0)
    with pytest.raises(UserError, match=r'scale_factor=\(0\.5, 2\.0\): give one number'):
        build_subject(config, retinanet[0], (64, 64), backbone_only=True)


def test_a_blind_detector_is_not_exported(tmp_path):
    class Blind:
        unit = ''

        def __call__(self, image, outputs):
            return Compared(image.shape, 0.0, detections=0)

    with pytest.raises(UserError, match='finds nothing in any image'):
        export_subject(
            Subject(nn.Conv2d(3, 4, 1), ['map'], (8, 8), compare=Blind()), tmp_path / 'm.onnx'
        )
    assert list(tmp_path.iterdir()) == []
