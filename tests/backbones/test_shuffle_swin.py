"""Channel-shuffle Swin against its author's fork, and the plain one against mmdet's."""

import copy

import pytest
import torch
from helpers import golden_files
from helpers.variants import largest_deviation, randomise_vectors
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lightvit_mm.backbones import ShuffleSwin
from lightvit_mm.backbones.shuffle_swin import PatchMerging, SplitPatchMerging, WindowAttention


@pytest.mark.parametrize('deploy', [False, True])
def test_golden_outputs(deploy):
    golden = golden_files.read('shuffle_swin_extra_tiny')
    model = ShuffleSwin(arch='extra_tiny', rescale='fixed', out_norm=False, deploy=deploy).eval()
    model.load_state_dict(golden_files.weights(golden))
    for run in golden['runs']:
        with torch.no_grad():
            outputs = model(golden_files.image(run['input']))
        for output, expected in zip(outputs, run['outputs'], strict=True):
            assert golden_files.deviation(output, expected) < 1e-4


@pytest.mark.parametrize('deploy', [False, True])
def test_plain_network_equals_that_of_mmdet(deploy):
    from mmdet.models import SwinTransformer

    reference = SwinTransformer(
        embed_dims=48, depths=(2, 2, 5, 2), num_heads=(3, 6, 12, 24), drop_path_rate=0
    )
    reference.eval()  # which does not return the model
    randomise_vectors(reference)
    for name, parameter in reference.named_parameters():
        if name.endswith('bias_table'):
            torch.nn.init.normal_(parameter)
    model = ShuffleSwin(arch='extra_tiny', shuffle=False, deploy=deploy).eval()
    model.load_state_dict(reference.state_dict())
    # Neither patches, mergings nor windows divide the sides, and the last map exceeds a window.
    x = torch.randn(2, 3, 253, 291)
    with torch.no_grad():
        assert largest_deviation(model(x), reference(x)) < 1e-4


# (parameters, GMACs at 224 x 224) with a last norm and a 1000-class head; reference/recipes.md 5.2.
# The counts of the shuffled ones include the learnable scalars, two a block.
PUBLISHED = {
    ('extra_tiny', False): (6_852_742, 1.071),
    ('extra_tiny', True): (7_182_846, 1.032),
    ('tiny', False): (28_288_354, 4.491),
    ('tiny', True): (28_839_980, 4.325),
}


@pytest.mark.parametrize(('arch', 'shuffle'), PUBLISHED)
def test_parameters_and_operations(arch, shuffle):
    model = ShuffleSwin(arch=arch, shuffle=shuffle, out_norm=False).eval()
    channels = model.out_channels[-1]
    parameters, gmacs = PUBLISHED[arch, shuffle]
    head = 2 * channels + 1000 * channels + 1000
    assert sum(p.numel() for p in model.parameters()) + head == parameters
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() / 2e9 + channels / 1e6 == pytest.approx(gmacs, rel=2e-3)


@pytest.mark.parametrize(('arch', 'scalars'), [('extra_tiny', 20), ('tiny', 22)])
def test_parameters_of_the_rescaling(arch, scalars):
    counts = [
        sum(p.numel() for p in ShuffleSwin(arch=arch, rescale=rescale).parameters())
        for rescale in ('learnable', 'fixed', 'none')
    ]
    assert [count - counts[1] for count in counts] == [scalars, 0, 0]


def test_rescaling_starts_as_the_fixed_one():
    learnable = ShuffleSwin(arch='extra_tiny').eval()
    fixed = ShuffleSwin(arch='extra_tiny', rescale='fixed').eval()
    weights = {k: v for k, v in learnable.state_dict().items() if not k.endswith('.scale')}
    fixed.load_state_dict(weights)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert largest_deviation(fixed(x), learnable(x)) < 1e-5


@pytest.mark.parametrize('rescale', ['learnable', 'none'])
def test_plain_network_is_not_rescaled(rescale):
    model = ShuffleSwin(arch='extra_tiny', shuffle=False, rescale=rescale)
    assert not [name for name in model.state_dict() if name.endswith('.scale')]
    assert model.out_channels == (48, 96, 192, 384)
    assert [len(stage.blocks) for stage in model.stages] == [2, 2, 5, 2]


def test_levels_come_after_the_last_shuffle():
    model = ShuffleSwin(arch='extra_tiny', out_indices=(0,), out_norm=False)
    for block in model.stages[0].blocks:
        block.block = torch.nn.Identity()
    x = torch.randn(1, 3, 16, 16)
    stem = model.stem(x).permute(0, 3, 1, 2)

    def shuffled(x: torch.Tensor) -> torch.Tensor:
        return torch.stack((x[:, :48], x[:, 48:]), dim=2).flatten(1, 2)

    assert torch.equal(model(x)[0], shuffled(shuffled(stem)))


def test_custom_arch_has_the_depths_that_it_states():
    arch = {'attend_dims': (8, 16, 32, 64), 'depths': (1, 1, 2, 1), 'num_heads': (1, 1, 2, 4)}
    for shuffle in (False, True):
        model = ShuffleSwin(arch=arch, shuffle=shuffle)
        assert [len(stage.blocks) for stage in model.stages] == [1, 1, 2, 1]
        assert model.out_channels[0] == (16 if shuffle else 8)


@pytest.mark.parametrize(('height', 'width', 'shifted'), [(7, 14, False), (8, 14, True)])
def test_only_maps_longer_than_a_window_both_ways_are_shifted(height, width, shifted):
    attention = WindowAttention(8, 2, window_size=7, shift=3)
    still = WindowAttention(8, 2, window_size=7, shift=0)
    still.load_state_dict(attention.state_dict())
    x = torch.randn(2, height, width, 8)
    assert torch.allclose(attention(x), still(x), atol=1e-6) is not shifted


def test_no_attention_across_the_seam():
    attention = WindowAttention(8, 2, window_size=7, shift=3)
    x = torch.randn(1, 14, 14, 8)
    changed = x.clone()
    changed[:, 0, 0] += 1
    difference = (attention(x) - attention(changed))[0].abs().sum(-1) > 1e-6
    # The top left token shares its window, of 3 x 3 tokens, with no token of another border.
    expected = torch.zeros(14, 14, dtype=torch.bool)
    expected[:3, :3] = True
    assert torch.equal(difference, expected)


def test_halves_are_downsampled_separately_and_odd_sides_padded():
    merging = SplitPatchMerging(8)
    assert isinstance(merging.attended, PatchMerging)
    x = torch.randn(1, 5, 7, 16)
    output = merging(x)
    assert output.shape == (1, 3, 4, 32)
    changed = torch.cat((x[..., :8], torch.randn(1, 5, 7, 8)), dim=-1)
    assert torch.equal(merging(changed)[..., :16], output[..., :16])
    assert not torch.allclose(merging(changed)[..., 16:], output[..., 16:])
    padded = torch.nn.functional.pad(x, (0, 0, 0, 1, 0, 1))
    assert torch.equal(merging(padded), output)


@pytest.mark.parametrize('shuffle', [False, True])
def test_deploy_form_with_random_layer_norms(shuffle):
    model = ShuffleSwin(arch='extra_tiny', shuffle=shuffle).eval()
    randomise_vectors(model)
    deployed = copy.deepcopy(model).switch_to_deploy()
    with torch.no_grad():
        for size in [(97, 131), (256, 240)]:
            x = torch.randn(2, 3, *size)
            assert largest_deviation(deployed(x), model(x)) < 1e-4
    names = list(deployed.state_dict())
    assert not [name for name in names if 'norm2' in name or name.endswith('bias_table')]


def test_fast_attention_is_available_to_the_deploy_form():
    model = ShuffleSwin(arch='extra_tiny', deploy=True).eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        model(torch.randn(1, 3, 64, 64))  # raises where a block would have to do without


def test_output_norms():
    normed = ShuffleSwin(arch='extra_tiny').eval()
    randomise_vectors(normed)
    plain = ShuffleSwin(arch='extra_tiny', out_norm=False).eval()
    plain.load_state_dict(normed.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        outputs, before = normed(x), plain(x)
        for index, (output, level) in enumerate(zip(outputs, before, strict=True)):
            norm = normed.out_norms[str(index)]
            expected = norm(level.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            assert largest_deviation([output], [expected]) < 1e-6
    assert list(ShuffleSwin(arch='extra_tiny', out_indices=(1, 3)).out_norms) == ['1', '3']
