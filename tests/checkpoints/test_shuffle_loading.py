"""Every layout of Swin, DeiT and T2T-ViT, and the parts that no published file has."""

import re

import pytest
import torch
from helpers import golden_files, official_vit
from helpers.variants import largest_deviation
from torch import nn
from torch.nn import functional as F

from lightvit_mm.backbones import ShuffleDeiT, ShuffleSwin, ShuffleT2TViT
from lightvit_mm.checkpoints import WeightsError
from lightvit_mm.layers import resize_position

SWIN = {'arch': {'attend_dims': (8, 16, 32, 64), 'depths': (2, 2, 3, 2), 'num_heads': (1, 1, 2, 4)}}
DEIT = {'arch': {'attend_dims': 24, 'depths': (1, 2, 1, 1), 'num_heads': 2}}


def randomised(model: nn.Module) -> nn.Module:
    """``model`` in which no two tensors of the same shape are alike."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def reported(log: list[str]) -> str:
    """The last line that reports a loading."""
    return [line for line in log if ' tensors from the ' in line][-1]


def without(weights: dict, part: str) -> dict:
    return {name: value for name, value in weights.items() if not name.startswith(part)}


def assert_same(model: nn.Module, reference: nn.Module, size: int = 64) -> None:
    x = torch.randn(1, 3, size, size)
    with torch.no_grad():
        assert largest_deviation(model.eval()(x), reference(x)) < 1e-5


def to_timm(name: str) -> str:
    name = name.replace('stem.', 'patch_embed.').replace('stages.', 'layers.')
    return name.replace('out_norms.', 'norm')


def to_official(name: str) -> str:
    name = to_timm(name)
    return re.sub(r'layers\.(\d)\.downsample', lambda m: f'layers.{int(m[1]) - 1}.downsample', name)


def to_mmdet(name: str) -> str:
    name = to_official(name).replace('patch_embed.proj.', 'patch_embed.projection.')
    name = name.replace('layers.', 'stages.').replace('.attn.', '.attn.w_msa.')
    return name.replace('.mlp.fc1.', '.ffn.layers.0.0.').replace('.mlp.fc2.', '.ffn.layers.1.')


def channels_first(name: str, value: torch.Tensor) -> torch.Tensor:
    """Inputs of a merging as nn.Unfold orders them."""
    if '.downsample.' not in name:
        return value
    tokens = F.unfold(torch.arange(value.shape[-1]).view(1, -1, 2, 2).double(), 2)[0, :, 0].long()
    ours = torch.cat(
        [torch.arange(value.shape[-1]).view(-1, 2, 2)[:, r, c] for c in (0, 1) for r in (0, 1)]
    )
    output = torch.empty_like(value)
    output[..., ours] = value
    return output[..., tokens]


SWIN_EXTRAS = {
    'official': {
        'layers.0.blocks.1.attn_mask': torch.zeros(1),
        'layers.0.blocks.0.attn.relative_position_index': torch.zeros(49, 49),
        'norm.weight': torch.ones(64),
        'norm.bias': torch.ones(64),
        'head.weight': torch.ones(10, 64),
    },
    'timm': {
        'layers.0.blocks.1.attn_mask': torch.zeros(1),
        'norm.weight': torch.ones(64),
        'head.fc.weight': torch.ones(10, 64),
    },
    'mmdet': {'stages.0.blocks.0.attn.w_msa.relative_position_index': torch.zeros(49, 49)},
}
SWIN_NAMES = {'official': to_official, 'timm': to_timm, 'mmdet': to_mmdet}


def swin_file(model: nn.Module, layout: str) -> dict[str, torch.Tensor]:
    weights = {
        SWIN_NAMES[layout](name): channels_first(name, value) if layout == 'mmdet' else value
        for name, value in model.state_dict().items()
    }
    return {**weights, **SWIN_EXTRAS[layout]}


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('layout', SWIN_NAMES)
def test_plain_swin_with_the_norms_of_a_detector(layout, deploy, mm_log):
    reference = randomised(ShuffleSwin(**SWIN, shuffle=False))
    model = ShuffleSwin(**SWIN, shuffle=False, deploy=deploy)
    model.load_state_dict(swin_file(reference, layout))
    assert_same(model, reference)
    assert f'from the {layout} layout' in reported(mm_log)
    assert 'left as initialised' not in reported(mm_log)


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('layout', ['official', 'timm'])
def test_plain_swin_of_a_classifier(layout, deploy, mm_log):
    reference = randomised(ShuffleSwin(**SWIN, shuffle=False, out_norm=False))
    file = swin_file(reference, layout)
    for prefix in ('', 'backbone.'):
        model = ShuffleSwin(**SWIN, shuffle=False, deploy=deploy)
        for norm in model.out_norms.values():
            nn.init.constant_(norm.bias, 0.5)
        model.load_state_dict({prefix + name: value for name, value in file.items()})
        count = len(reference.state_dict())
        assert f'{count}/{count + 8} tensors from the {layout} layout' in reported(mm_log)
        assert 'in no published file, so left as initialised: out_norms (8)' in reported(mm_log)
        assert all((norm.bias == 0.5).all() for norm in model.out_norms.values())
        plain = ShuffleSwin(**SWIN, shuffle=False, out_norm=False, deploy=deploy)
        plain.load_state_dict(file)
        assert_same(plain, reference)
        assert 'left as initialised' not in reported(mm_log)


@pytest.mark.parametrize('layout', SWIN_NAMES)
def test_lower_stages_of_a_plain_swin(layout):
    reference = randomised(ShuffleSwin(**SWIN, shuffle=False))
    model = ShuffleSwin(**SWIN, shuffle=False, out_indices=(1,)).eval()
    model.load_state_dict(swin_file(reference, layout))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x)[0], reference(x)[1])


def test_norm_of_the_last_level_alone():
    reference = randomised(ShuffleSwin(**SWIN, shuffle=False))
    file = swin_file(reference, 'mmdet')
    for level in range(3):
        file = without(file, f'norm{level}.')
    model = ShuffleSwin(**SWIN, shuffle=False)
    model.load_state_dict(file)
    assert torch.equal(model.out_norms['3'].weight, reference.out_norms['3'].weight)
    assert torch.equal(model.out_norms['2'].weight, torch.ones(32))


def test_half_a_norm_is_an_error():
    file = swin_file(randomised(ShuffleSwin(**SWIN, shuffle=False)), 'official')
    del file['norm1.bias']
    with pytest.raises(WeightsError, match=r'1 missing \(out_norms\.1\.bias\)'):
        ShuffleSwin(**SWIN, shuffle=False).load_state_dict(file)


@pytest.mark.parametrize('part', ['blocks.1.mlp.fc1.bias', 'downsample.norm.weight'])
def test_a_missing_tensor_is_an_error(part):
    file = swin_file(randomised(ShuffleSwin(**SWIN, shuffle=False)), 'official')
    del file[f'layers.1.{part}']
    with pytest.raises(WeightsError, match='1 missing'):
        ShuffleSwin(**SWIN, shuffle=False).load_state_dict(file)


@pytest.mark.parametrize(
    ('family', 'arch', 'part'),
    [
        (ShuffleSwin, SWIN, 'out_norms.'),
        (ShuffleSwin, SWIN, 'out_norms.2.'),
        (ShuffleDeiT, DEIT, 'levels.'),
        (ShuffleT2TViT, DEIT, 'levels.1.'),
    ],
)
@pytest.mark.parametrize('shuffle', [False, True])
@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.'])
def test_own_files_must_be_whole(family, arch, part, shuffle, prefix):
    model = family(**arch, shuffle=shuffle)
    weights = without(model.state_dict(), part)
    with pytest.raises(WeightsError, match=rf'missing \({part}'):
        model.load_state_dict({prefix + name: value for name, value in weights.items()})


def test_plain_weights_are_not_for_a_shuffled_network():
    file = swin_file(randomised(ShuffleSwin(**SWIN, shuffle=False)), 'official')
    with pytest.raises(WeightsError):
        ShuffleSwin(**SWIN).load_state_dict(file)
    golden = golden_files.weights(golden_files.read('timm_deit_tiny'))
    with pytest.raises(WeightsError, match='of another shape'):
        ShuffleDeiT(arch='tiny').load_state_dict(golden)


def test_fork_of_the_author_with_shuffled_swin(mm_log):
    weights = golden_files.weights(golden_files.read('shuffle_swin_extra_tiny'))
    ShuffleSwin(arch='extra_tiny', rescale='fixed').load_state_dict(weights)
    assert "152/160 tensors from the author's fork layout" in reported(mm_log)
    with pytest.raises(WeightsError, match=r'20 missing .*shortcut1\.scale'):
        ShuffleSwin(arch='extra_tiny').load_state_dict(weights)


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('shuffle', [False, True])
@pytest.mark.parametrize('family', [ShuffleDeiT, ShuffleT2TViT])
def test_flat_networks(family, shuffle, deploy, mm_log):
    reference = randomised(family(**DEIT, shuffle=shuffle, rescale='none'))
    model = family(**DEIT, shuffle=shuffle, rescale='none', deploy=deploy).eval()
    levels = {n: v.clone() for n, v in model.state_dict().items() if n.startswith('levels.')}
    file = official_vit.weights(reference)
    model.load_state_dict({'model': {f'module.{name}': value for name, value in file.items()}})
    layout = "author's fork" if shuffle else 'official'
    assert f'tensors from the {layout} layout' in reported(mm_log)
    assert 'in no published file, so left as initialised: levels (11)' in reported(mm_log)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert largest_deviation(model.stage_maps(x), reference.stage_maps(x)) < 1e-4
    for name, value in levels.items():
        assert torch.equal(model.state_dict()[name], value)


def test_lower_stages_of_a_flat_network():
    reference = randomised(ShuffleDeiT(**DEIT, shuffle=False))
    model = ShuffleDeiT(**DEIT, shuffle=False, out_indices=(0, 1)).eval()
    model.load_state_dict(official_vit.weights(reference))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert largest_deviation(model.stage_maps(x), reference.stage_maps(x)[:2]) == 0


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_positions_of_another_image_size_are_interpolated(dtype):
    reference = randomised(ShuffleDeiT(**DEIT, shuffle=False))
    file = official_vit.weights(reference)
    file['pos_embed'] = torch.randn(1, 1 + 24 * 24, 24, dtype=dtype)  # 384 x 384
    model = ShuffleDeiT(**DEIT, shuffle=False)
    model.load_state_dict(file)
    expected = resize_position(file['pos_embed'].float(), 14, 14)
    torch.testing.assert_close(model.stem.pos_embed.data, expected)


def test_distilled_deit_is_refused():
    file = official_vit.weights(randomised(ShuffleDeiT(**DEIT, shuffle=False)))
    file['dist_token'] = torch.ones(1, 1, 24)
    file['pos_embed'] = torch.ones(1, 198, 24)
    with pytest.raises(
        WeightsError, match=r'1 unexpected \(dist_token\).*pos_embed: \(1, 198, 24\)'
    ):
        ShuffleDeiT(**DEIT, shuffle=False).load_state_dict(file)
