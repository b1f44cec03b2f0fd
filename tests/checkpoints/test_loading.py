"""Weights in any layout, loaded in any way; those that do not fit are refused."""

import copy

import pytest
import torch
from helpers import golden_files
from helpers.variants import largest_deviation
from mmengine.config import Config
from mmengine.runner import load_checkpoint, load_state_dict

from lightvit_mm.backbones import EdgeViT, MobileViT, RepViT
from lightvit_mm.checkpoints import WeightsError


@pytest.fixture(scope='module')
def official() -> dict[str, torch.Tensor]:
    return golden_files.weights(golden_files.read('edgevit_xxs'))


@pytest.fixture(scope='module')
def reference(official) -> EdgeViT:
    model = EdgeViT(arch='xxs').eval()
    model.load_state_dict(official)
    return model


def assert_same(model: torch.nn.Module, reference: torch.nn.Module) -> None:
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert largest_deviation(model.eval()(x), reference(x)) == 0


WRAPPERS = {
    'bare': lambda weights: weights,
    'model': lambda weights: {'model': weights, 'epoch': 3},
    'state_dict': lambda weights: {'state_dict': weights, 'meta': {}},
    'ema only': lambda weights: {'model_ema': weights, 'optimizer': {}},
    'module.': lambda weights: {f'module.{k}': v for k, v in weights.items()},
    'detector': lambda weights: {
        'state_dict': {
            **{f'backbone.{k}': v for k, v in weights.items()},
            'neck.lateral_convs.0.conv.weight': torch.ones(1),
        }
    },
    'module.backbone.': lambda weights: {f'module.backbone.{k}': v for k, v in weights.items()},
}


@pytest.mark.parametrize('ours', [False, True], ids=['official', 'ours'])
@pytest.mark.parametrize('wrap', WRAPPERS.values(), ids=WRAPPERS)
def test_init_cfg(tmp_path, official, reference, mm_log, wrap, ours):
    file = tmp_path / 'weights.pth'
    torch.save(wrap(reference.state_dict() if ours else official), file)
    model = EdgeViT(arch='xxs', init_cfg={'type': 'Pretrained', 'checkpoint': str(file)})
    model.init_weights()
    assert_same(model, reference)
    layout = 'lightvit_mm' if ours else 'official'
    report = [line for line in mm_log if f'244/244 tensors from the {layout} layout' in line]
    assert len(report) == 1
    assert str(file) in report[0]


def test_init_cfg_with_prefix(tmp_path, official, reference):
    file = tmp_path / 'weights.pth'
    torch.save({f'backbone.{key}': value for key, value in official.items()}, file)
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(file), 'prefix': 'backbone.'}
    model = EdgeViT(arch='xxs', init_cfg=init_cfg)
    model.init_weights()
    assert_same(model, reference)


class Detector(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = EdgeViT(arch='xxs')
        self.head = torch.nn.Linear(2, 2)


@pytest.mark.parametrize('wrap', WRAPPERS.values(), ids=WRAPPERS)
def test_load_from_into_a_whole_model(tmp_path, official, reference, mm_log, wrap):
    file = tmp_path / 'weights.pth'
    torch.save(wrap(official), file)
    detector = Detector()
    load_checkpoint(detector, str(file), logger='current')
    assert_same(detector.backbone, reference)
    said = '\n'.join(mm_log)
    assert f'official layout of {file}' in said
    assert 'patch_embed' not in said, 'weights that were taken are called unexpected'


def test_init_detector(tmp_path, official, reference):
    from mmdet.apis import init_detector

    file = tmp_path / 'weights.pth'
    torch.save(official, file)
    config = Config.fromfile('configs/retinanet_edgevit_xxs_coco.py')
    config.model.backbone.out_norm = False
    detector = init_detector(config, str(file), device='cpu')
    assert_same(detector.backbone, reference)


DAMAGE = {
    'missing': (lambda w: w.pop('blocks2.0.SelfAttn.attn.qkv.weight'), r'1 missing \(stages\.1'),
    'unexpected': (lambda w: w.update(extra=torch.ones(1)), r'1 unexpected \(extra\)'),
    'shape': (
        lambda w: w.update({'patch_embed1.norm.bias': torch.ones(7)}),
        r'patch_embed1|stem\.norm\.bias.*\(7,\) in the file, \(36,\) here',
    ),
    'no tensor': (lambda w: w.update({'patch_embed1.norm.bias': 'x'}), 'str in the file'),
}


@pytest.mark.parametrize(('damage', 'message'), DAMAGE.values(), ids=DAMAGE)
def test_misfits_are_errors_and_load_nothing(tmp_path, official, damage, message):
    weights = dict(official)
    damage(weights)
    file = tmp_path / 'weights.pth'
    torch.save(weights, file)
    detector = Detector()
    before = copy.deepcopy(detector.state_dict())
    ways = {
        'load_from': lambda: load_checkpoint(detector, str(file)),
        'init_cfg': lambda: EdgeViT(
            arch='xxs', init_cfg={'type': 'Pretrained', 'checkpoint': str(file)}
        ).init_weights(),
    }
    for way in ways.values():
        with pytest.raises(WeightsError, match=message) as error:
            way()
        for part in ('EdgeViT xxs', str(file), 'official layout'):
            assert part in str(error.value)
    for name, value in detector.state_dict().items():
        assert torch.equal(value, before[name])


def test_another_arch_is_refused(official):
    with pytest.raises(WeightsError, match='another shape'):
        EdgeViT(arch='xs').load_state_dict(official)


def test_nothing_for_the_backbone_is_an_error():
    detector = Detector()
    with pytest.raises(WeightsError, match='missing'):
        load_state_dict(detector, {'head.weight': torch.ones(2, 2), 'head.bias': torch.ones(2)})


def test_counters_may_be_absent(official, reference):
    weights = {k: v for k, v in official.items() if not k.endswith('num_batches_tracked')}
    model = EdgeViT(arch='xxs')
    model.load_state_dict(weights)
    assert_same(model, reference)


def test_half_precision_weights(official, reference):
    model = EdgeViT(arch='xxs').eval()
    model.load_state_dict(
        {k: v.half() if v.is_floating_point() else v for k, v in official.items()}
    )
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert largest_deviation(model(x), reference(x)) < 0.02


NEIGHBOURS = {
    'smaller': (RepViT, 'm1_1', 'm1_0', False, r"It fits arch='m1_1' or 'm2'$"),
    'larger': (RepViT, 'm1_0', 'm1_1', True, r"of another shape or kind.*It fits arch='m1_0'$"),
    'mobilevit': (MobileViT, 'xs', 's', False, r"It fits arch='xs'$"),
    'no variant': (MobileViT, {'dims': 8}, 's', False, r'is it whole\?$'),
}


@pytest.mark.parametrize(
    ('family', 'there', 'here', 'deploy', 'said'), NEIGHBOURS.values(), ids=NEIGHBOURS
)
def test_another_variant_of_the_family(family, there, here, deploy, said):
    if isinstance(there, dict):
        weights = {f'blocks.{name}': torch.ones(size) for name, size in there.items()}
    else:
        with torch.device('meta'):
            weights = family(arch=there, deploy=deploy).state_dict()
        weights = {
            f'backbone.{name}': torch.zeros_like(w, device='cpu') for name, w in weights.items()
        }
    with torch.device('meta'):
        model = family(arch=here, deploy=deploy)
    with pytest.raises(WeightsError, match=said):
        model.load_state_dict(weights)
