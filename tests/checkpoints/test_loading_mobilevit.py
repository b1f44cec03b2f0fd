"""The layouts that MobileViT's weights were published in."""

import copy

import pytest
import torch
from helpers import golden_files
from helpers.variants import largest_deviation, randomise_norms
from mmengine.runner import load_checkpoint

from lightvit_mm.backbones import MobileViT
from lightvit_mm.checkpoints import WeightsError
from lightvit_mm.checkpoints.mobilevit import LAYOUTS

RELEASES = {
    'Apple': 'mobilevit_s',
    'timm': 'timm_mobilevit_s',
    'mmpretrain': 'mmpretrain_mobilevit_s',
}
HEAD = {'Apple': 'classifier', 'timm': 'head', 'mmpretrain': 'head'}
EXPANSION = {'Apple': 'conv_1x1_exp', 'timm': 'final_conv', 'mmpretrain': 'conv_1x1_exp'}


@pytest.fixture
def reference(arch) -> MobileViT:
    model = MobileViT(arch=arch, expand_last=True).eval()
    randomise_norms(model)
    return model


@pytest.fixture
def release(layout, reference) -> dict[str, torch.Tensor]:
    """The reference's weights under the names of a release; they are the same in every variant."""
    ours = reference.state_dict()
    rename = next(entry for entry in LAYOUTS if entry.name == layout).rename
    names = golden_files.read(RELEASES[layout])['state_dict']
    return {
        name: ours.pop(rename(name.removeprefix('backbone.')), torch.ones(1000)) for name in names
    }


every_layout = pytest.mark.parametrize('layout', RELEASES)
every_arch = pytest.mark.parametrize('arch', MobileViT.arch_settings)
smallest = pytest.mark.parametrize('arch', ['xxs'])


def assert_same(model: torch.nn.Module, reference: torch.nn.Module) -> None:
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert largest_deviation(model.eval()(x), reference(x)) == 0


@every_layout
@every_arch
def test_releases_of_every_variant(tmp_path, layout, release, arch, reference, mm_log):
    file = tmp_path / 'weights.pth'
    torch.save({'state_dict': release} if layout == 'mmpretrain' else release, file)
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(file)}
    model = MobileViT(arch=arch, expand_last=True, init_cfg=init_cfg)
    model.init_weights()
    assert_same(model, reference)
    report = f'MobileViT {arch}: 309/309 tensors from the {layout} layout of {file}'
    assert f'{report}; not part of the backbone: {HEAD[layout]} (2)' in mm_log


@every_layout
@smallest
def test_an_expansion_that_is_not_built_is_left_out_aloud(layout, release, reference, mm_log):
    model = MobileViT(arch='xxs').eval()
    model.load_state_dict(release)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert largest_deviation(model(x)[:3], reference(x)[:3]) == 0
    line = next(line for line in mm_log if '303/303 tensors' in line)
    assert f'{EXPANSION[layout]} (6)' in line


@every_layout
@smallest
def test_an_expansion_that_is_built_must_be_in_the_file(layout, release):
    weights = {k: v for k, v in release.items() if 'conv_1x1_exp' not in k and 'final' not in k}
    MobileViT(arch='xxs').load_state_dict(weights)
    with pytest.raises(WeightsError, match=r'5 missing \(conv_1x1_exp\.conv\.weight'):
        MobileViT(arch='xxs', expand_last=True).load_state_dict(weights)


class Detector(torch.nn.Module):
    def __init__(self, **arguments) -> None:
        super().__init__()
        self.backbone = MobileViT(arch='xxs', **arguments)


WRAPPERS = {
    'bare': lambda weights: weights,
    'module.': lambda weights: {f'module.{k}': v for k, v in weights.items()},
    'detector': lambda weights: {
        'state_dict': {
            **{f'backbone.{k.removeprefix("backbone.")}': v for k, v in weights.items()},
            'neck.lateral_convs.0.conv.weight': torch.ones(1),
        }
    },
}


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('wrap', WRAPPERS.values(), ids=WRAPPERS)
@every_layout
@smallest
def test_load_from_into_a_whole_model(tmp_path, release, reference, mm_log, wrap, deploy):
    file = tmp_path / 'weights.pth'
    torch.save(wrap(release), file)
    detector = Detector(expand_last=True, deploy=deploy)
    load_checkpoint(detector, str(file), logger='current')
    expected = copy.deepcopy(reference)
    assert_same(detector.backbone, expected.switch_to_deploy() if deploy else expected)
    assert 'conv_proj' not in '\n'.join(mm_log), 'weights that were taken are called unexpected'


@pytest.mark.parametrize(
    'head', ['ssd_heads.0.loc_cls_layer.pw_conv.block.conv.weight', 'seg_head.x']
)
@pytest.mark.parametrize('layout', ['Apple'])
@smallest
def test_detectors_and_segmentors_of_apple(tmp_path, release, reference, head):
    # They keep the backbone below "encoder." and have neither its classifier nor its expansion.
    weights = {
        f'encoder.{name}': value
        for name, value in release.items()
        if not name.startswith(('classifier', 'conv_1x1_exp'))
    }
    file = tmp_path / 'weights.pt'
    torch.save({**weights, head: torch.ones(1)}, file)
    detector = Detector()
    load_checkpoint(detector, str(file))
    plain = MobileViT(arch='xxs').eval()
    plain.load_state_dict(reference.state_dict())
    assert_same(detector.backbone, plain)


@pytest.mark.parametrize('layout', ['mmpretrain'])
@smallest
def test_init_cfg_with_prefix(tmp_path, release, reference):
    file = tmp_path / 'weights.pth'
    torch.save({'state_dict': release}, file)
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(file), 'prefix': 'backbone.'}
    model = MobileViT(arch='xxs', expand_last=True, init_cfg=init_cfg)
    model.init_weights()
    assert_same(model, reference)


@every_layout
@smallest
def test_another_arch_is_refused(release):
    with pytest.raises(WeightsError, match='another shape'):
        MobileViT(arch='xs').load_state_dict(release)
