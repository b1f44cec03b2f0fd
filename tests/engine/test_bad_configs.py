"""A mistake in a config gives one error with a remedy, before the first training step."""

import argparse
import runpy

import pytest
import torch
from helpers import small_data
from helpers.repository import REPOSITORY
from helpers.small_data import ARCH
from mmengine.runner import load_checkpoint

from lightvit_mm.backbones import EdgeViT, RepViT
from lightvit_mm.checkpoints import CheckpointError, WeightsError
from lightvit_mm.engine.arguments import add_cfg_options
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.model_checks import check_channels
from lightvit_mm.engine.predicting import predict
from lightvit_mm.engine.running import test as evaluate
from lightvit_mm.engine.running import train
from lightvit_mm.engine.trained_model import load_model
from lightvit_mm.errors import ConfigError, UserError
from lightvit_mm.export.exporting import export
from lightvit_mm.reporting.validating import validate

pytestmark = pytest.mark.usefixtures('quick_runner')

BACKBONE, NECK = 'model.backbone', 'model.neck'
CONFIGS = {
    'arch': ({f'{BACKBONE}.arch': 'huge'}, r"no arch 'huge'; choose one of 'xxs', 'xs', 's'"),
    'argument': (
        {f'{BACKBONE}.depth_multiplier': 2},
        r"EdgeViT has no argument 'depth_multiplier'; it takes arch, out_norm, out_indices,",
    ),
    'type': ({f'{BACKBONE}.type': 'EdgeVit'}, r'EdgeVit is not in the mmdet::model registry'),
    'argument of a head': ({'model.bbox_head.depth': 2}, r"unexpected keyword argument 'depth'"),
    'out_indices': ({f'{BACKBONE}.out_indices': (0, 4)}, r'out_indices=\(0, 4\).*0 to 3'),
    'fewer levels': (
        {f'{BACKBONE}.out_indices': (1, 2, 3)},
        r'model\.neck\.in_channels is \[8, 8, 8, 8\], but EdgeViT custom with '
        r'out_indices=\(1, 2, 3\) gives \[8, 8, 8\]. Set',
    ),
    'neck': (
        {f'{NECK}.in_channels': [8, 8, 8, 16]},
        r'model\.neck\.in_channels is \[8, 8, 8, 16\], but EdgeViT .* gives \[8, 8, 8, 8\]',
    ),
    'head': ({'model.bbox_head.in_channels': 16}, r'bbox_head\.in_channels is 16, but .* gives 8'),
    'classes': ({'model.bbox_head.num_classes': 80}, r'num_classes is 80.* 4 classes'),
    'half a validation': (
        {'val_cfg': None},
        r'has no val_cfg: .* write val_dataloader = val_evaluator = val_cfg = None',
    ),
}


@pytest.mark.parametrize(('options', 'said'), CONFIGS.values(), ids=CONFIGS)
def test_configs(small_coco, tmp_path, options, said):
    config = small_data.tiny_detector(small_coco, tmp_path)
    config.merge_from_dict(options)
    with pytest.raises(UserError, match=said):
        train(config)


def test_a_best_checkpoint_by_what_is_not_measured(small_coco, tmp_path):
    config = small_data.tiny_detector(small_coco, tmp_path)
    config.train_cfg.update(max_epochs=1, val_interval=1)
    config.default_hooks.checkpoint.update(save_best='bbox_mAP', rule='greater')
    config.model.test_cfg.score_thr = 0.0  # without detections there is no metric
    with pytest.raises(UserError, match=r'save_best: bbox_mAP is not .* has coco/bbox_mAP, '):
        train(config)


def test_a_work_dir_that_holds_the_config(small_coco, tmp_path):
    mine = tmp_path / 'mine.py'
    small_data.tiny_detector(small_coco, tmp_path).dump(str(mine))
    before = mine.read_text()
    config = load_config(str(mine), work_dir=str(tmp_path))
    with pytest.raises(UserError, match=f'would replace {mine}: give another folder'):
        train(config)
    assert mine.read_text() == before
    config.work_dir = str(mine)
    with pytest.raises(UserError, match=rf'{mine} is a file: give a folder'):
        train(config)


def test_a_config_without_a_test_set(small_coco, tmp_path):
    config = small_data.tiny_detector(small_coco, tmp_path)
    file = small_data.save_checkpoint(config, tmp_path / 'epoch_1.pth')
    config.test_dataloader = config.test_evaluator = config.test_cfg = None
    with pytest.raises(UserError, match='has no test set: write test_dataloader = val_dataloader'):
        evaluate(config, file)
    image = next((small_coco / 'images/val').iterdir())
    assert len(predict(config, file, str(image), str(tmp_path / 'out')).pictures) == 1


SEGMENTORS = {
    'index': (
        {'decode_head': {'in_channels': [8], 'in_index': [4]}},
        r'decode_head\.in_index asks for level 4, but EdgeViT .* has 4 levels \(0 to 3\)',
    ),
    'channels': (
        {'auxiliary_head': [{'in_channels': 8, 'in_index': 2}, {'in_channels': 9, 'in_index': 1}]},
        r'auxiliary_head\.in_channels expects 9 channels of level 1, but EdgeViT .* gives 8',
    ),
    'neck': (
        {
            'neck': {'type': 'FPN', 'in_channels': [8] * 4, 'out_channels': 16, 'num_outs': 4},
            'decode_head': {'in_channels': [16, 8], 'in_index': [0, 1]},
        },
        r'expects 8 channels of level 1, but model\.neck \(FPN\) gives 16',
    ),
}


@pytest.mark.parametrize(('parts', 'said'), SEGMENTORS.values(), ids=SEGMENTORS)
def test_heads_of_segmentors(parts, said):
    model = torch.nn.Module()
    model.backbone = EdgeViT(arch=ARCH)
    with pytest.raises(ConfigError, match=said):
        check_channels(model, parts)


def weights(**changes) -> dict[str, torch.Tensor]:
    return {**EdgeViT(arch=ARCH).state_dict(), **changes}


def without_one() -> dict[str, torch.Tensor]:
    found = weights()
    found.pop('stem.norm.weight')
    return found


FILES = {
    'another family': (
        lambda f: torch.save(RepViT(arch='m0_6').state_dict(), f), WeightsError, 'does not fit',
    ),
    'another size': (
        lambda f: torch.save(EdgeViT(arch='xxs').state_dict(), f), WeightsError, 'another shape',
    ),
    'one missing': (
        lambda f: torch.save(without_one(), f), WeightsError, r'1 missing \(stem\.norm\.weight\)',
    ),
    'NaN': (
        lambda f: torch.save(weights(**{'stem.norm.weight': torch.full((8,), float('nan'))}), f),
        WeightsError, r'1 without finite values \(stem\.norm\.weight\)',
    ),
    'integers': (
        lambda f: torch.save(weights(**{'stem.norm.weight': torch.ones(8, dtype=int)}), f),
        WeightsError, r'stem\.norm\.weight: \(8,\) integer in the file, \(8,\) here',
    ),
    'page': (lambda f: f.write_text('<!DOCTYPE html>'), CheckpointError, 'web page.*Fetch it'),
    'empty': (lambda f: f.write_bytes(b''), CheckpointError, 'Fetch it again'),
    'directory': (lambda f: f.mkdir(), FileNotFoundError, 'is a directory, not a file'),
    'nothing': (lambda f: None, FileNotFoundError, 'does not exist'),
}  # fmt: skip


@pytest.mark.parametrize(('make', 'error', 'said'), FILES.values(), ids=FILES)
def test_checkpoints(tmp_path, make, error, said):
    file = tmp_path / 'weights.pth'
    make(file)
    model = torch.nn.Module()
    model.backbone = EdgeViT(arch=ARCH, init_cfg={'type': 'Pretrained', 'checkpoint': str(file)})
    for load in (model.backbone.init_weights, lambda: load_checkpoint(model, str(file))):
        with pytest.raises(error, match=said) as raised:
            load()
        assert str(file) in str(raised.value)


@pytest.mark.parametrize('name', ['one missing', 'page', 'directory'])
@pytest.mark.parametrize('way', ['init_cfg', 'load_from', 'test', 'predict'])
def test_checkpoints_by_every_tool(small_coco, tmp_path, way, name):
    make, error, said = FILES[name]
    file = tmp_path / 'weights.pth'
    make(file)
    config = small_data.tiny_detector(small_coco, tmp_path)
    if way == 'init_cfg':
        config.model.backbone.init_cfg = {'type': 'Pretrained', 'checkpoint': str(file)}
    elif way == 'load_from':
        config.load_from = str(file)
    run = {
        'test': lambda: evaluate(config, str(file)),
        'predict': lambda: predict(config, str(file), str(small_coco / 'images'), str(tmp_path)),
    }.get(way, lambda: train(config))
    with pytest.raises(error, match=rf'{said}|not the checkpoint of a whole model') as raised:
        run()
    assert str(file) in str(raised.value)


@pytest.mark.parametrize('way', ['init_cfg', 'load_from'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_checkpoints_that_load(tmp_path, way, dtype):
    right = weights()
    other = {k: v.to(dtype) if v.is_floating_point() else v for k, v in right.items()}
    file = tmp_path / 'weights.pth'
    torch.save({'model': {f'module.backbone.{k}': v for k, v in other.items()}}, file)
    model = torch.nn.Module()
    model.backbone = EdgeViT(arch=ARCH, init_cfg={'type': 'Pretrained', 'checkpoint': str(file)})
    if way == 'init_cfg':
        model.backbone.init_weights()
    else:
        load_checkpoint(model, str(file))
    for name, value in model.backbone.state_dict().items():
        torch.testing.assert_close(value, other[name].to(value.dtype), rtol=0, atol=0, msg=name)


def test_a_checkpoint_without_its_head_is_not_evaluated(small_coco, tmp_path):
    config = small_data.tiny_detector(small_coco, tmp_path)
    config.train_cfg = {'type': 'EpochBasedTrainLoop', 'max_epochs': 0}
    model = train(config).model
    whole = model.state_dict()
    whole.pop('bbox_head.retina_cls.bias')
    torch.save({'state_dict': whole, 'meta': {}}, tmp_path / 'part.pth')
    said = r'part\.pth is not the checkpoint of a whole model .*retina_cls\.bias: missing'
    with pytest.raises(WeightsError, match=said):
        evaluate(small_data.tiny_detector(small_coco, tmp_path), str(tmp_path / 'part.pth'))
    images = str(small_coco / 'images/val')
    with pytest.raises(WeightsError, match=said):
        predict(
            small_data.tiny_detector(small_coco, tmp_path),
            str(tmp_path / 'part.pth'),
            images,
            str(tmp_path / 'out'),
        )


CONFIG = REPOSITORY / 'configs/retinanet_edgevit_xxs_shapes.py'
OPTIONS = {
    'param_scheduler.9.end=3': r'param_scheduler is a list with the entries 0 to 1',
    'param_scheduler.-1.end=3': r'param_scheduler is a list with the entries 0 to 1',
    'param_scheduler.x=3': r'param_scheduler is a list with the entries 0 to 1',
    'param_scheduler.x.y=3': r'param_scheduler is a list with the entries 0 to 1',
    'train_cfg.max_epochs.a=3': r'train_cfg\.max_epochs is \d+, which has no entries',
    'model=3': ': model is 3, not a dict',
    'model=None': 'has no model',
    'train_dataloader=3': ': train_dataloader is 3, not a dict',
    'env_cfg=3': ': env_cfg is 3, not a dict',
    'env_cfg=None': 'env_cfg is None, which has no entries',
    'env_cfg.dist_cfg=3': r'env_cfg\.dist_cfg is 3, which has no entries',
}


def parsed(*pairs: str) -> dict:
    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    return parser.parse_args(['--cfg-options', *pairs]).cfg_options


@pytest.mark.parametrize(('option', 'said'), OPTIONS.items(), ids=OPTIONS)
def test_options_that_do_not_fit_the_config(option, said):
    with pytest.raises(ConfigError, match=said):
        load_config(str(CONFIG), parsed('train_cfg.val_interval=1', option))


@pytest.mark.parametrize(
    'option', ['foo', '=3', 'a..b=1', '.=1', 'model.=3', 'a=[1,2', 'a=1,(2', f'a={"[" * 3000}1,2']
)
def test_options_that_are_no_key_and_value(option, capsys):
    with pytest.raises(SystemExit) as ended:
        parsed('a.b=1', option)
    assert ended.value.code == 2
    assert f'error: --cfg-options {option[:80]}: ' in capsys.readouterr().err


def test_options_that_are_kept():
    assert parsed('a.b=1', 'c=[1,(2,x)]', 'd=e=f', 'g=') == {
        'a.b': 1, 'c': [1, (2, 'x')], 'd': 'e=f', 'g': '',
    }  # fmt: skip
    config = load_config(str(CONFIG), {'param_scheduler.1.end': 3, 'new.entry': 1})
    assert config.param_scheduler[1].end == 3
    assert config.new.entry == 1


@pytest.mark.parametrize(
    'name', ['train', 'test', 'predict', 'export', 'check_data', 'browse_data']
)
def test_every_tool_exits_with_status_2(tmp_path, monkeypatch, capsys, name):
    tool = str(REPOSITORY / f'tools/{name}.py')
    names = {
        'test': ['weights.pth'],
        'predict': ['weights.pth', 'images', '--out', 'out'],
        'export': ['weights.pth', 'out.onnx'],
    }.get(name, [])
    (tmp_path / 'broken.py').write_text('model = dict(\n')
    for arguments, said in (
        ([str(CONFIG), *names, '--cfg-options', 'foo'], 'expected KEY=VALUE'),
        (
            [str(CONFIG), *names, '--cfg-options', 'param_scheduler.x=3'],
            'is a list with the entries',
        ),
        ([str(tmp_path / 'broken.py'), *names], 'broken.py cannot be read: SyntaxError'),
    ):
        monkeypatch.setattr('sys.argv', [tool, *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(tool, run_name='__main__')
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


TEXTS = {
    'syntax': ('model = dict(\n', r'SyntaxError: .* was never closed'),
    'indent': ('  a = 1\n b = 2\n', 'IndentationError'),
    'name': ('a = 1\nmodel = dict(a=foo)\n', r"NameError: name 'foo' .*broken\.py, line 2"),
    'zero': ('a = 1 / 0\n', r'ZeroDivisionError: .*broken\.py, line 1'),
    'no base': ('_base_ = "missing.py"\n', r'FileNotFoundError: .*missing\.py'),
    'import': (
        'custom_imports = dict(imports=["not_a_module"])\n', 'ImportError: .*not_a_module',
    ),
    'lazy import': (
        'from torch import nn\nmodel = dict(type=nn.Nope)\n', r'ImportError: .*torch\.nn\.Nope',
    ),
    'no base scope': ('_base_ = "nope::a.py"\n', 'cannot be read'),
    'empty': ('', 'has no model'),
    'list': ('model = [1]\n', r': model is \[1\], not a dict'),
    'bytes': (b'\xff\xfe', 'SyntaxError|UnicodeDecodeError'),
}  # fmt: skip


@pytest.mark.parametrize(('text', 'said'), TEXTS.values(), ids=TEXTS)
def test_configs_that_cannot_be_read(tmp_path, monkeypatch, text, said):
    monkeypatch.setattr('lightvit_mm.doctor.explain', lambda error: None)  # which takes seconds
    file = tmp_path / 'broken.py'
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=f'(?s){said}') as error:
        load_config(str(file))
    assert str(file) in str(error.value)


def test_a_config_of_another_suffix(tmp_path):
    (tmp_path / 'config.txt').write_text('a = 1')
    with pytest.raises(ConfigError, match=r'config\.txt cannot be read: OSError: Only py'):
        load_config(str(tmp_path / 'config.txt'))


def test_a_config_without_an_environment(tmp_path):
    (tmp_path / 'config.py').write_text('model = dict(type="RepViT")\n')
    config = load_config(str(tmp_path / 'config.py'))
    assert config.default_scope == 'mmengine'


@pytest.fixture(scope='module')
def trained(small_coco, tmp_path_factory):
    """A checkpoint of one iteration."""
    work_dir = tmp_path_factory.mktemp('trained')
    config = small_data.tiny_detector(small_coco, work_dir)
    config.train_cfg.update(max_epochs=1, val_interval=9)
    config.default_hooks.checkpoint.interval = 1
    train(config)
    return torch.load(work_dir / 'work/epoch_1.pth', weights_only=False)


NECK_WEIGHT = 'neck.lateral_convs.0.conv.weight'
VALUES = {
    'NaN': (lambda v: v * float('nan'), 'without finite values'),
    'overflow': (lambda v: v.double() + 1e300, 'without finite values'),
    'meta': (lambda v: v.to('meta'), 'without finite values'),
    'int32': (lambda v: v.int(), r'\(8, 8, 1, 1\) integer in the file, \(8, 8, 1, 1\) here'),
    'bool': (lambda v: v > 0, r'\(8, 8, 1, 1\) integer in the file'),
    'complex': (lambda v: v.to(torch.complex64), r'\(8, 8, 1, 1\) complex in the file'),
    'sparse': (lambda v: v.to_sparse(), r'\(8, 8, 1, 1\) torch\.sparse_coo in the file'),
    'list': (lambda v: v.tolist(), 'list in the file'),
    'none': (lambda v: None, 'NoneType in the file'),
}
WAYS = {
    'test': lambda config, file, images: evaluate(config, file),
    'predict': lambda config, file, images: predict(config, file, images, config.work_dir),
    'load_from': lambda config, file, images: train(config),
    'resume': lambda config, file, images: train(config, resume=file),
    'export': lambda config, file, images: export(
        config, file, f'{config.work_dir}.onnx', (64, 64), images=[f'{images}/a.png']
    ),
    'report': lambda config, file, images: validate(config, file, 'cpu'),
}
# Every kind of value in one way, and every way with one kind.
PAIRS = [*((value, 'predict') for value in VALUES), *(('NaN', w) for w in WAYS if w != 'predict')]


@pytest.mark.parametrize(('value', 'way'), [*PAIRS, ('list', 'load_from'), ('int32', 'load_from')])
def test_values_outside_the_backbone(small_coco, trained, tmp_path, value, way):
    make, said = VALUES[value]
    weights = {**trained['state_dict'], NECK_WEIGHT: make(trained['state_dict'][NECK_WEIGHT])}
    file = tmp_path / 'epoch_1.pth'
    torch.save({**trained, 'state_dict': weights}, file)
    config = small_data.tiny_detector(small_coco, tmp_path)
    config.train_cfg.update(max_epochs=2, val_interval=9)
    config.load_from = str(file)
    pattern = rf'epoch_1\.pth is damaged: 1 tensors .*\({NECK_WEIGHT}: {said}.*Nothing was loaded'
    with pytest.raises(WeightsError, match=pattern):
        WAYS[way](config, str(file), str(small_coco / 'images/val'))


def test_a_backbone_is_exported_without_the_rest(small_coco, trained, tmp_path):
    weights = {k: v for k, v in trained['state_dict'].items() if k.startswith('backbone.')}
    torch.save({'state_dict': weights}, tmp_path / 'backbone.pth')
    config = small_data.tiny_detector(small_coco, tmp_path)
    model = load_model(config, str(tmp_path / 'backbone.pth'), 'cpu', backbone_only=True)
    name = 'stem.norm.weight'
    assert torch.equal(model.backbone.state_dict()[name], weights[f'backbone.{name}'])
    with pytest.raises(WeightsError, match='24 tensors do not fit'):
        load_model(config, str(tmp_path / 'backbone.pth'), 'cpu')
