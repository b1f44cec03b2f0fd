"""Every layout in which RepViT's weights were published."""

import pytest
import torch
from helpers import golden_files, official_repvit
from helpers.variants import largest_deviation
from mmengine.runner import load_checkpoint

from lightvit_mm.backbones import RepViT
from lightvit_mm.checkpoints import WeightsError

ARCH = 'm0_6'


@pytest.fixture(scope='module')
def current() -> dict[str, torch.Tensor]:
    return official_repvit.weights(**RepViT.arch_settings[ARCH])


@pytest.fixture(scope='module')
def legacy() -> dict[str, torch.Tensor]:
    return official_repvit.weights(**RepViT.arch_settings[ARCH], legacy=True)


def expected(weights: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """The levels of the official COCO configs."""
    maps = official_repvit.outputs(weights, x)
    return [maps[index] for index in (1, 4, 14, 17)]


def assert_computes(model: RepViT, weights: dict[str, torch.Tensor]) -> None:
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert largest_deviation(model.eval()(x), expected(weights, x)) < 1e-5


@pytest.mark.parametrize('deploy', [False, True])
def test_official(current, mm_log, deploy):
    model = RepViT(arch=ARCH, deploy=deploy)
    model.load_state_dict(current)
    assert_computes(model, current)
    assert 'tensors from the official layout' in '\n'.join(mm_log)
    assert 'not part of the backbone: classifier (14)' in '\n'.join(mm_log)


@pytest.mark.parametrize('deploy', [False, True])
def test_official_legacy(legacy, mm_log, deploy):
    model = RepViT(arch=ARCH, deploy=deploy)
    model.load_state_dict(legacy)
    assert_computes(model, legacy)
    assert 'tensors from the official legacy layout' in '\n'.join(mm_log)


def test_legacy_statistics_that_hide_nothing(legacy):
    # Small variances make the epsilon count, and a wrong one visible.
    weights = {k: v * 1e-4 if k.endswith('var') and 'conv1' in k else v for k, v in legacy.items()}
    model = RepViT(arch=ARCH)
    model.load_state_dict(weights)
    assert_computes(model, weights)


def test_official_fused(current, mm_log):
    fused = official_repvit.fused(current)
    model = RepViT(arch=ARCH, deploy=True)
    model.load_state_dict(fused)
    assert_computes(model, current)
    assert 'tensors from the official fused layout' in '\n'.join(mm_log)
    # A network that was folded after it was built takes the file as well.
    switched = RepViT(arch=ARCH).switch_to_deploy()
    switched.load_state_dict(fused)
    assert_computes(switched, current)
    for tap in ('stage', 'pre_block'):
        training = RepViT(arch=ARCH, tap=tap, out_indices=(0, 1))
        before = {name: value.clone() for name, value in training.state_dict().items()}
        with pytest.raises(WeightsError, match=r'folded .*cannot be trained.*deploy=True'):
            training.load_state_dict(fused)
        for name, value in training.state_dict().items():
            assert torch.equal(value, before[name])


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize(
    ('name', 'arch', 'layout'),
    [('timm_repvit_m0_9', 'm0_9', 'timm'), ('timm_repvit_m3', 'm3', 'timm legacy')],
)
def test_timm(mm_log, name, arch, layout, deploy):
    model = RepViT(arch=arch, deploy=deploy)
    model.load_state_dict(golden_files.weights(golden_files.read(name)))
    assert f'tensors from the {layout} layout' in '\n'.join(mm_log)
    assert 'not part of the backbone: head (14)' in '\n'.join(mm_log)


def test_first_version_files_fit_the_names_of_today():
    for old, new in {'m1': 'm0_9', 'm2': 'm1_1'}.items():
        assert RepViT.arch_settings[old] == RepViT.arch_settings[new]


def test_squeeze_excitation_of_older_timm(current):
    names = {'.fc1.': '.conv_reduce.', '.fc2.': '.conv_expand.'}
    renamed = dict(current)
    for today, before in names.items():
        renamed = {key.replace(today, before): value for key, value in renamed.items()}
    assert renamed.keys() != current.keys()
    model = RepViT(arch=ARCH)
    model.load_state_dict(renamed)
    assert_computes(model, current)


class Detector(torch.nn.Module):
    def __init__(self, **arguments) -> None:
        super().__init__()
        self.backbone = RepViT(arch=ARCH, **arguments)
        self.head = torch.nn.Linear(2, 2)


@pytest.mark.parametrize('old', [False, True], ids=['current', 'legacy'])
@pytest.mark.parametrize('deploy', [False, True])
def test_released_detector(tmp_path, current, legacy, mm_log, old, deploy):
    weights = legacy if old else current
    # mmcv 1.x saves the whole detector, whose backbone has no classifier.
    detector = {f'backbone.{k}': v for k, v in weights.items() if not k.startswith('classifier')}
    detector['neck.lateral_convs.0.conv.weight'] = torch.ones(256, 40, 1, 1)
    detector['rpn_head.rpn_conv.weight'] = torch.ones(1)
    file = tmp_path / 'repvit_coco.pth'
    torch.save({'meta': {'mmcv_version': '1.7.1'}, 'state_dict': detector, 'optimizer': {}}, file)

    whole = Detector(deploy=deploy)
    load_checkpoint(whole, str(file), logger='current')
    assert_computes(whole.backbone, weights)
    assert 'backbone.features' not in '\n'.join(mm_log)

    alone = RepViT(
        arch=ARCH, deploy=deploy, init_cfg={'type': 'Pretrained', 'checkpoint': str(file)}
    )
    alone.init_weights()
    assert_computes(alone, weights)
    layout = 'official legacy' if old else 'official'
    assert any(f'tensors from the {layout} layout of {file}' in line for line in mm_log)


def test_training_checkpoint_of_the_authors(tmp_path, current):
    file = tmp_path / 'repvit_distill_300e.pth'
    torch.save({'model': current, 'optimizer': {}, 'epoch': 299, 'model_ema': current}, file)
    model = RepViT(arch=ARCH, init_cfg={'type': 'Pretrained', 'checkpoint': str(file)})
    model.init_weights()
    assert_computes(model, current)


@pytest.mark.parametrize('tap', ['stage', 'pre_block'])
@pytest.mark.parametrize('out_indices', [(0,), (1, 2)])
@pytest.mark.parametrize('old', [False, True], ids=['current', 'legacy'])
def test_levels_that_are_not_built_are_left_out(current, legacy, old, out_indices, tap):
    weights = legacy if old else current
    model = RepViT(arch=ARCH, tap=tap, out_indices=out_indices).eval()
    model.load_state_dict(weights)
    x = torch.randn(1, 3, 64, 64)
    maps = official_repvit.outputs(weights, x)
    entries = {'stage': (1, 4, 14, 17), 'pre_block': (2, 5, 15, 17)}[tap]
    with torch.no_grad():
        assert largest_deviation(model(x), [maps[entries[i]] for i in out_indices]) < 1e-5


def test_another_variant_is_refused(current, legacy):
    for weights in (current, legacy):
        for arch in ('m0_9', 'm3'):
            with pytest.raises(WeightsError, match=r'missing|another shape'):
                RepViT(arch=arch).load_state_dict(weights)


UNIT = 'features.1.token_mixer.0'
DAMAGE = {
    'norm gone': (lambda w: w.pop(f'{UNIT}.conv1.bn.weight'), rf'{UNIT}\.conv1\.bn\.bias'),
    'norm misshapen': (
        lambda w: w.update({f'{UNIT}.conv1.bn.weight': torch.ones(7)}),
        rf'{UNIT}\.conv1\.bn\.weight',
    ),
    'no tensor': (
        lambda w: w.update({f'{UNIT}.conv1.c.weight': 'x'}),
        rf'{UNIT}\.conv1\.c\.weight',
    ),
    'kernel gone': (lambda w: w.pop(f'{UNIT}.conv1.c.weight'), 'token_mixer.conv1x1.weight'),
}


@pytest.mark.parametrize(('damage', 'message'), DAMAGE.values(), ids=DAMAGE)
def test_damaged_legacy_files_are_refused_by_the_names_in_them(legacy, damage, message):
    weights = dict(legacy)
    damage(weights)
    with pytest.raises(WeightsError, match=message) as error:
        RepViT(arch=ARCH).load_state_dict(weights)
    assert 'official legacy layout' in str(error.value)


def test_counters_may_be_absent_and_weights_half(legacy):
    weights = {k: v.half() for k, v in legacy.items() if not k.endswith('num_batches_tracked')}
    model = RepViT(arch=ARCH).eval()
    model.load_state_dict(weights)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert largest_deviation(model(x), expected(legacy, x)) < 0.02
