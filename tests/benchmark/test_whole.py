"""Whole models at a tiny size: their parts, their boxes, and their report."""

import copy
import json
import runpy
import sys
import time

import pytest
import torch
from helpers.detectors import SMALL_MASK_RCNN
from helpers.repository import REPOSITORY, run_tool
from helpers.small_data import save_checkpoint
from helpers.variants import randomise_norms
from mmengine.registry import MODELS, init_default_scope

from lightvit_mm.benchmark.parts import PARTS, REST, BoxCount, Clocked, modules_of
from lightvit_mm.benchmark.peers import PEERS, peer_configs
from lightvit_mm.benchmark.report import as_whole_table, write_json
from lightvit_mm.benchmark.run import Settings
from lightvit_mm.benchmark.whole import benchmark_whole
from lightvit_mm.benchmark.whole_models import (
    CANDIDATES,
    input_size,
    load_peers,
    load_whole,
    normalised,
    read_image,
    set_candidates,
    whole_tables,
)
from lightvit_mm.engine.configs import load_config
from lightvit_mm.errors import UserError
from lightvit_mm.measure.complexity import count_macs, count_parameters, inference_form

QUICK = {'rounds': 1, 'min_seconds': 0.0}
CONFIGS = REPOSITORY / 'configs'
DETECTOR = str(CONFIGS / 'retinanet_repvit_m0_6_shapes.py')
SEGMENTOR = str(CONFIGS / 'semantic_fpn_repvit_m0_6_ade20k.py')


@pytest.fixture(scope='module')
def detector():
    return load_whole(DETECTOR)


@pytest.fixture(scope='module')
def mask_rcnn(tmp_path_factory):
    file = tmp_path_factory.mktemp('config') / 'small.py'
    config = load_config(str(CONFIGS / 'mask_rcnn_repvit_m0_6_coco.py'), SMALL_MASK_RCNN)
    config.dump(file)
    return load_whole(str(file))


def built(file):
    config = load_config(file)
    init_default_scope(config.default_scope)
    return MODELS.build(config.model)


@pytest.mark.parametrize(
    ('config', 'size'),
    [
        ('retinanet_repvit_m0_6_coco', (800, 1344)),
        ('ssdlite_mobilevit_xs_coco', (320, 320)),
        ('semantic_fpn_repvit_m0_6_ade20k', (512, 512)),
        ('deeplabv3_mobilevit_xxs_voc12aug', (512, 512)),
        ('retinanet_repvit_m0_6_shapes', (128, 128)),
        ('mobilevit_xxs_in1k', (256, 256)),
    ],
)
def test_the_size_is_that_of_the_test_pipeline(config, size):
    assert input_size(load_config(str(CONFIGS / f'{config}.py'))) == size


def test_sizes_that_no_config_names():
    config = load_config(DETECTOR)
    config.test_dataloader.dataset.pipeline = []
    with pytest.raises(UserError, match='resizes to no size; give --sizes'):
        input_size(config)


def test_models_of_one_size_share_a_table():
    other = str(CONFIGS / 'retinanet_edgevit_xxs_shapes.py')
    assert whole_tables([DETECTOR, SEGMENTOR, other, DETECTOR], None) == {
        (128, 128): [DETECTOR, other],
        (512, 512): [SEGMENTOR],
    }
    sizes = [(64, 64), (32, 64)]
    assert whole_tables([DETECTOR, SEGMENTOR], sizes) == {
        size: [DETECTOR, SEGMENTOR] for size in sizes
    }


def test_the_model_is_folded_and_counted_before(detector):
    assert detector.parameters == count_parameters(built(DETECTOR))
    assert detector.name == 'retinanet_repvit_m0_6_shapes'
    assert not detector.model.training
    kinds = {type(module).__name__ for module in detector.model.modules()}
    assert not any('BatchNorm' in kind for kind in kinds)


def test_what_only_trains_does_not_count():
    file = str(CONFIGS / 'upernet_repvit_m0_6_ade20k.py')
    model = built(file)
    only_trains = count_parameters(model.auxiliary_head)
    assert load_whole(file).parameters == count_parameters(model) - only_trains


def test_other_frameworks_have_no_whole_models(tmp_path):
    file = tmp_path / 'plain.py'
    file.write_text("model = dict(type='RepViT', arch='m0_6')")
    with pytest.raises(UserError, match='measure the backbone with --backbone-only'):
        load_whole(str(file))


def test_parts(detector, mask_rcnn):
    names = {
        part: [type(m).__name__ for m in ms] for part, ms in modules_of(mask_rcnn.model).items()
    }
    assert names == {
        'backbone': ['RepViT'],
        'neck': ['FPN'],
        'head': [
            'RPNHead', 'SingleRoIExtractor', 'Shared2FCBBoxHead', 'SingleRoIExtractor',
            'FCNMaskHead',
        ],
    }  # fmt: skip
    assert [len(modules) for modules in modules_of(detector.model).values()] == [1, 1, 1]


@pytest.mark.parametrize('file', [DETECTOR, SEGMENTOR])
def test_every_part_is_timed(file):
    whole = load_whole(file)
    slow = {'backbone': 0.02, 'neck': 0.03, 'head': 0.04}
    for part, (module, *_) in modules_of(whole.model).items():

        def late(*args, forward=module.forward, part=part):
            time.sleep(slow[part])
            return forward(*args)

        module.forward = late
    image = torch.randn(1, 3, 64, 64)
    before = {name: module.forward for name, module in whole.model.named_children()}
    clocked = Clocked(whole.model, lambda: whole.predict(image))
    clocked()
    clocked()
    assert list(clocked.seconds) == [*PARTS, REST]
    for part, least in slow.items():
        assert len(clocked.seconds[part]) == 2
        assert min(clocked.seconds[part]) >= least
    # Afterwards the model is as it was.
    assert {name: module.forward for name, module in whole.model.named_children()} == before


def test_the_threshold_lets_so_many_boxes_into_nms(detector, mask_rcnn):
    image = normalised(detector, read_image(None, (256, 256)))
    # 100 proposals of four classes are fewer. Those into the NMS of the RPN don't count.
    for whole, most in ((detector, CANDIDATES), (mask_rcnn, 400)):
        set_candidates(whole, image)
        count = BoxCount()
        with count.watching(whole.model):
            found = whole.predict(image).pred_instances
        assert 0.98 * most <= count.boxes <= most
        assert 0 < len(found) <= 100
        settings = whole.model.test_cfg.get('rcnn', whole.model.test_cfg)
        assert (found.scores > settings.score_thr).all()
    assert detector.model.test_cfg.score_thr > 0.5


def test_without_nms_nothing_is_counted():
    count = BoxCount()
    whole = load_whole(SEGMENTOR)
    with count.watching(whole.model):
        whole.predict(torch.randn(1, 3, 32, 32))
    assert count.boxes is None


def test_detectors_in_turn(detector, mask_rcnn, tmp_path):
    settings = Settings(dtypes=('fp32', 'bf16'), **QUICK)
    result = benchmark_whole([detector, mask_rcnn], (64, 96), settings)
    assert result.shape == (1, 3, 64, 96)
    assert [row.form for row in result.rows] == [
        'retinanet_repvit_m0_6_shapes fp32', 'retinanet_repvit_m0_6_shapes bf16', 'small fp32',
        'small bf16',
    ]  # fmt: skip
    assert result.baseline == result.rows[0].form
    assert result.rows[0].timing.ratio == 1
    for row, whole in zip(result.rows[::2], (detector, mask_rcnn), strict=True):
        assert list(row.parts) == [*PARTS, REST]
        assert all(seconds > 0 for seconds in row.parts.values())
        assert row.macs == count_macs(inference_form(whole.model), 64, 96)
        assert row.parameters == whole.parameters
        assert 0 < row.found <= row.boxes <= CANDIDATES
    assert any('1000 boxes go into NMS' in note for note in result.notes)
    table = as_whole_table(result)
    assert table.title == 'whole models, input 1x3x64x96'
    cells = [list(column.cells) for column in table.columns]
    assert cells[0][0] == 'retinanet_repvit_m0_6_shapes fp32 *'
    first = result.rows[0]
    assert cells[9][0] == f'{1e3 * sum(first.parts.values()):.1f}'
    assert cells[10][0] == f'{first.boxes} to {first.found}'
    file = tmp_path / 'whole.json'
    write_json(str(file), [result], 'cpu', 'python tools/benchmark.py a.py')
    (written,) = json.loads(file.read_text())['results']
    assert written['shape'] == [1, 3, 64, 96]
    assert written['rows'][0]['parts'] == first.parts
    assert written['rows'][0]['model'] == 'retinanet_repvit_m0_6_shapes'


def test_a_classifier():
    file = str(CONFIGS / 'efficientvit_m0_in1k.py')
    whole = load_whole(file)
    names = {part: [type(m).__name__ for m in ms] for part, ms in modules_of(whole.model).items()}
    assert names == {'backbone': ['EfficientViT'], 'neck': [], 'head': ['ClassifierHead']}
    assert whole.predict(torch.randn(1, 3, 64, 64)).shape == (1, 1000)
    settings = Settings(dtypes=('fp32', 'bf16'), runtimes=('onnxruntime',), **QUICK)
    result = benchmark_whole([whole], (64, 64), settings)
    assert result.notes == ['efficientvit_m0_in1k: classifiers are not exported']
    for row in result.rows:
        assert row.found is None
        assert row.parts['backbone'] > row.parts['head'] > 0
        assert row.parameters == count_parameters(built(file))
        assert row.macs == count_macs(whole.model, 64, 64)


def test_trained_weights_keep_their_threshold(tmp_path):
    weights = save_checkpoint(load_config(DETECTOR), tmp_path / 'weights.pth')
    whole = load_whole(DETECTOR, checkpoint=weights)
    result = benchmark_whole([whole], (64, 64), Settings(**QUICK))
    assert whole.model.test_cfg.score_thr == load_config(DETECTOR).model.test_cfg.score_thr
    assert result.notes == []
    assert result.rows[0].trained


def test_bfloat16_computes_almost_the_same(detector):
    from lightvit_mm.benchmark.parts import set_dtype

    image = torch.randn(1, 3, 64, 64)
    half = copy.deepcopy(detector.model)
    set_dtype(half, 'bf16', 'cpu')
    with torch.inference_mode():
        expected, found = (model(image, mode='tensor')[0][0] for model in (detector.model, half))
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize('file', [DETECTOR, SEGMENTOR])
def test_exported(file):
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason='export needs it: pip install -e ".[onnx]"')
    whole = load_whole(file)
    randomise_norms(whole.model)
    result = benchmark_whole([whole], (64, 64), Settings(runtimes=('onnxruntime',), **QUICK))
    eager, exported = result.rows
    assert (exported.how, exported.parts, exported.boxes) == ('onnxruntime', {}, None)
    assert exported.first_call > 0
    assert exported.found == eager.found


def test_what_cannot_be_exported_is_said(mask_rcnn):
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason='export needs it: pip install -e ".[onnx]"')
    other = copy.deepcopy(mask_rcnn)
    other.model.test_cfg.rcnn.nms['type'] = 'soft_nms'
    result = benchmark_whole([other], (64, 64), Settings(runtimes=('onnxruntime',), **QUICK))
    assert [row.how for row in result.rows] == ['']
    assert any('small: test_cfg: nms of type soft_nms' in note for note in result.notes)


def test_photos(detector, tmp_path):
    import mmcv
    import numpy as np

    picture = np.zeros((10, 20, 3), np.uint8)
    picture[..., 0] = 200  # blue
    mmcv.imwrite(picture, str(tmp_path / 'photo.png'))
    image = read_image(str(tmp_path / 'photo.png'), (6, 8))
    assert image.shape == (1, 3, 6, 8)
    assert image[0, :, 0, 0].tolist() == [200, 0, 0]
    mean, std = (torch.tensor(detector.preprocessing[key]) for key in ('mean', 'std'))
    blue_last = (torch.tensor([0.0, 0.0, 200.0]) - mean) / std
    torch.testing.assert_close(normalised(detector, image)[0, :, 0, 0], blue_last)
    with pytest.raises(UserError, match=r'--image .* does not exist'):
        read_image(str(tmp_path / 'none.png'), (6, 8))


def test_peers_are_folded_and_those_of_their_tables():
    peers = load_peers([*PEERS, *PEERS])
    assert [peer.name for peer in peers] == [name for names in PEERS.values() for name in names]
    # Millions of parameters in the tables of mmdet and mmseg, which have none of SSDLite's.
    published = {'mmdet RTMDet-tiny': 4.8, 'mmdet YOLOX-tiny': 5.06, 'mmseg SegFormer-B0': 3.8}
    for peer in peers:
        assert peer.peer
        assert not any('BatchNorm' in type(module).__name__ for module in peer.model.modules())
        if peer.name in published:
            assert peer.parameters / 1e6 == pytest.approx(published[peer.name], rel=0.03)


def test_scores_of_a_model_without_normalisation_differ_too():
    (yolox,) = (peer for peer in load_peers(['mmdet']) if 'YOLOX' in peer.name)
    image, count = normalised(yolox, read_image(None, (256, 256))), BoxCount()
    set_candidates(yolox, image)
    with count.watching(yolox.model):
        yolox.predict(image)
    assert 0.98 * CANDIDATES <= count.boxes <= 1.02 * CANDIDATES


def test_installations_without_configs(monkeypatch, tmp_path):
    import mmdet

    monkeypatch.setattr(mmdet, '__file__', str(tmp_path / '__init__.py'))
    with pytest.raises(UserError, match=r'--peers: .* came without its configs'):
        peer_configs('mmdet')


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ([DETECTOR, '--train'], 'measure backbones: give --backbone-only'),
        (['repvit_m0_6', '--peers'], 'are for whole models: give a CONFIG'),
        ([DETECTOR, '--backbone-only', '--image', 'a.jpg'], 'are for whole models'),
        ([DETECTOR, SEGMENTOR, '--checkpoint', 'a.pth'], 'give one CONFIG'),
    ],
)
def test_options_that_do_not_go_together(arguments, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['tools/benchmark.py', *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(REPOSITORY / 'tools/benchmark.py'), run_name='__main__')
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_the_tool(tmp_path):
    done = run_tool(
        'tools/benchmark.py', DETECTOR, 'repvit_m0_6', '--sizes', '64', '--rounds', '1',
        '--seconds', '0', '--threads', '1', '--json', tmp_path / 'out.json', '--profile',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert '[1/2] measuring at 64x64:' in done.stdout
    assert '[2/2] measuring repvit_m0_6, 64x64' in done.stdout
    title = 'retinanet_repvit_m0_6_shapes operators by their own time'
    assert title in ' '.join(done.stdout.split())  # a narrow table breaks it
    assert f'2 tables; wrote {tmp_path}/out.json' in done.stdout
    whole, backbone = json.loads((tmp_path / 'out.json').read_text())['results']
    assert whole['rows'][0]['parts'].keys() == {*PARTS, REST}
    assert backbone['backbone'] == 'repvit_m0_6'
