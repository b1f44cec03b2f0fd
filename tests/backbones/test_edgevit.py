"""EdgeViT against its authors' code."""

import pytest
import torch
from helpers import golden_files
from helpers.variants import largest_deviation, randomise_norms

from lightvit_mm.backbones import EdgeViT


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('arch', ['xxs', 's'])
def test_golden_outputs(arch, deploy):
    golden = golden_files.read(f'edgevit_{arch}')
    model = EdgeViT(arch=arch, deploy=deploy).eval()
    model.load_state_dict(golden_files.weights(golden))
    for run in golden['runs']:
        with torch.no_grad():
            outputs = model(golden_files.image(run['input']))
        for output, expected in zip(outputs, run['outputs'], strict=True):
            assert golden_files.deviation(output, expected) < 1e-4


# Parameters of the official code with its 1000-class head, less that head.
@pytest.mark.parametrize(
    ('arch', 'parameters'),
    [
        ('xxs', 4_067_704 - 289_000),
        ('xs', 6_770_056 - 385_000),
        ('s', 13_108_168 - 385_000),
    ],
)
def test_parameter_count(arch, parameters):
    model = EdgeViT(arch=arch, out_norm=True)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_norm_epsilons():
    model = EdgeViT(arch='xxs')
    epsilons = {
        name.split('.', 3)[-1] if name.startswith('stages') else name: module.eps
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.LayerNorm)
    }
    assert epsilons['stem.norm'] == 1e-5
    assert epsilons['0.self_attn.norm1'] == epsilons['0.self_attn.norm2'] == 1e-6
    assert epsilons['0.self_attn.attn.norm'] == 1e-5


def test_output_norm_is_applied_to_the_last_level_only():
    x = torch.randn(2, 3, 64, 64)
    normed = EdgeViT(arch='xxs', out_norm=True).eval()
    randomise_norms(normed)
    plain = EdgeViT(arch='xxs').eval()
    plain.load_state_dict(normed.state_dict())
    with torch.no_grad():
        expected = list(plain(x))
        expected[-1] = normed.out_norm(expected[-1])
        outputs = normed(x)
        assert largest_deviation(outputs, expected) == 0
        assert largest_deviation(normed.switch_to_deploy()(x), expected) < 1e-4
    assert not hasattr(EdgeViT(arch='xxs', out_norm=True, out_indices=(0, 1)), 'out_norm')


def test_local_propagation_equals_the_transposed_convolution():
    attention = EdgeViT(arch='xxs').stages[0].blocks[0].self_attn.attn
    tokens = torch.randn(2, 5, 3, 36)
    expected = torch.nn.functional.conv_transpose2d(
        tokens.permute(0, 3, 1, 2),
        attention.local_prop.weight,
        attention.local_prop.bias,
        stride=4,
        groups=36,
    )
    torch.testing.assert_close(attention.local_prop(tokens).permute(0, 3, 1, 2), expected)


def test_sides_that_the_sampling_does_not_divide_keep_their_tokens():
    # At 100 x 100 the official code fails: stage 3 has 7 x 7 tokens sampled by 2.
    model = EdgeViT(arch='xxs').eval()
    x = torch.randn(1, 3, 100, 100)
    with torch.no_grad():
        small, large = model(x)[0], model(torch.nn.functional.pad(x, (0, 12, 0, 12)))[0]
    assert small.shape[-2:] == (25, 25)
    # Tokens far from the new border differ only through attention to the padding.
    assert (small[..., :8, :8] - large[..., :8, :8]).abs().mean() < 0.5 * small.std()
