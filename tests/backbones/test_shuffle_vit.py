"""Channel-shuffle DeiT and T2T-ViT, and the plain DeiT against timm's."""

import copy
import math

import pytest
import torch
from helpers import golden_files
from helpers.variants import (
    LargestTensor,
    largest_deviation,
    randomise_norms,
    randomise_vectors,
)
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lightvit_mm.backbones import ShuffleDeiT, ShuffleT2TViT
from lightvit_mm.backbones.tokens_to_token import TokenPerformer, sinusoid_table
from lightvit_mm.layers import resize_position


@pytest.mark.parametrize('deploy', [False, True])
def test_golden_outputs(deploy):
    golden = golden_files.read('timm_deit_tiny')
    model = ShuffleDeiT(arch='tiny', shuffle=False, deploy=deploy).eval()
    model.load_state_dict(golden_files.weights(golden))
    for run in golden['runs']:
        with torch.no_grad():
            outputs = model.stage_maps(golden_files.image(run['input']))
        for output, expected in zip(outputs, run['outputs'], strict=True):
            assert golden_files.deviation(output, expected) < 1e-4


# (trainable parameters, GMACs at 224 x 224 where stated) with a last norm and a 1000-class head,
# without a pyramid; reference/published_results.yaml and recipes.md 5.2. The counts of the shuffled
# ones include the learnable scalars, two a block.
PUBLISHED = {
    (ShuffleDeiT, 'tiny', False): (5_717_416, 1.254),
    (ShuffleDeiT, 'tiny', True): (6_095_488, 1.283),
    (ShuffleT2TViT, '7', False): (4_255_694, None),
    (ShuffleT2TViT, '7', True): (4_660_188, None),
    (ShuffleT2TViT, '10', False): (5_834_702, None),
    (ShuffleT2TViT, '10', True): (6_239_202, None),
    (ShuffleT2TViT, '12', False): (6_887_374, None),
    (ShuffleT2TViT, '12', True): (7_291_878, None),
}


@pytest.mark.parametrize(('family', 'arch', 'shuffle'), PUBLISHED)
def test_parameters_and_operations(family, arch, shuffle):
    model = family(arch=arch, shuffle=shuffle).eval()
    channels = model.out_channels[-1]
    parameters, gmacs = PUBLISHED[family, arch, shuffle]
    head = 2 * channels + 1000 * channels + 1000
    backbone = sum(p.numel() for name, p in model.named_parameters() if 'levels' not in name)
    assert backbone + head == parameters
    if gmacs:
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            model.stage_maps(torch.zeros(1, 3, 224, 224))
        assert counter.get_total_flops() / 2e9 + channels / 1e6 == pytest.approx(gmacs, rel=2e-3)


@pytest.mark.parametrize(
    ('family', 'arch', 'scalars'),
    [
        (ShuffleDeiT, 'tiny', 24),
        (ShuffleT2TViT, '7', 14),
        (ShuffleT2TViT, '10', 20),
        (ShuffleT2TViT, '12', 24),
    ],
)
def test_parameters_of_the_rescaling(family, arch, scalars):
    counts = [
        sum(p.numel() for p in family(arch=arch, rescale=rescale).parameters())
        for rescale in ('learnable', 'fixed', 'none')
    ]
    assert [count - counts[1] for count in counts] == [scalars, 0, 0]
    assert not [name for name in family(arch=arch, shuffle=False).state_dict() if 'scale' in name]


def test_norm_epsilons_and_biases():
    deit, t2t = ShuffleDeiT(arch='tiny'), ShuffleT2TViT(arch='7')
    for model, eps in ((deit, 1e-6), (t2t, 1e-5)):
        norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
        assert {norm.eps for norm in norms} == {eps}
    assert deit.stages[0].blocks[0].block.attn.qkv.bias is not None
    assert t2t.stages[0].blocks[0].block.attn.qkv.bias is None


@pytest.mark.parametrize('family', [ShuffleDeiT, ShuffleT2TViT])
def test_levels_are_resampled_stages(family):
    model = family(arch=next(iter(family.arch_settings))).eval()
    randomise_norms(model)
    x = torch.randn(1, 3, 72, 48)  # 5 x 3 patches, so that some levels are cropped
    with torch.no_grad():
        maps, outputs = model.stage_maps(x), model(x)
        up4, up2 = model.levels['0'], model.levels['1']
        first = up4.up2(F.gelu(up4.norm(up4.up1(maps[0]))))
        expected = [
            first[..., :18, :12],
            up2(maps[1])[..., :9, :6],
            maps[2],
            F.max_pool2d(F.pad(maps[3], (0, 1, 0, 1), value=-math.inf), 2),
        ]
        assert [o.shape[-2:] for o in outputs] == [(18, 12), (9, 6), (5, 3), (3, 2)]
        assert largest_deviation(outputs, expected) < 1e-6


def test_levels_from_the_last_map():
    deep = ShuffleDeiT(arch='tiny', levels_from='last').eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        outputs, maps = deep(x), deep.stage_maps(x)
        assert torch.equal(outputs[2], maps[3])
        assert largest_deviation([outputs[1]], [deep.levels['1'](maps[3])]) < 1e-6
        first = ShuffleDeiT(arch='tiny', levels_from='last', out_indices=(0,)).eval()
        first.load_state_dict(deep.state_dict())
        assert len(first.stages) == 4
        assert largest_deviation(first(x), outputs[:1]) == 0
    with pytest.raises(ValueError, match="'depths' or 'last'"):
        ShuffleDeiT(arch='tiny', levels_from='first')


def test_positions_are_interpolated():
    position = torch.randn(1, 1 + 14 * 14, 6)
    assert resize_position(position, 14, 14) is position
    resized = resize_position(position, 20, 9)
    assert torch.equal(resized[:, 0], position[:, 0])
    grid = position[0, 1:].reshape(14, 14, 6).permute(2, 0, 1)[None]
    expected = F.interpolate(grid, size=(20, 9), mode='bicubic', align_corners=False)
    torch.testing.assert_close(resized[0, 1:].t().reshape(6, 20, 9), expected[0])


@pytest.mark.parametrize('family', [ShuffleDeiT, ShuffleT2TViT])
def test_position_of_each_patch_is_added_to_it(family):
    stem = family(arch=next(iter(family.arch_settings))).stem.eval()
    x = torch.randn(1, 3, 48, 80)
    with torch.no_grad():
        tokens = stem(x)
        stem.pos_embed.zero_()
        difference = tokens - stem(x)
    fresh = family(arch=next(iter(family.arch_settings))).stem
    if family is ShuffleT2TViT:
        torch.testing.assert_close(
            difference, resize_position(fresh.pos_embed, 3, 5), rtol=0, atol=1e-5
        )
    assert torch.equal(stem(x)[:, :1], stem.cls_token)
    assert tokens.shape[1] == 1 + 3 * 5
    assert difference.std(dim=1).min() > 0


@pytest.mark.parametrize('family', [ShuffleDeiT, ShuffleT2TViT])
def test_deploy_form_with_random_layer_norms(family):
    model = family(arch=next(iter(family.arch_settings))).eval()
    randomise_vectors(model)
    randomise_norms(model)
    deployed = copy.deepcopy(model).switch_to_deploy()
    x = torch.randn(2, 3, 97, 131)
    with torch.no_grad():
        assert largest_deviation(deployed(x), model(x)) < 1e-4
    for module in deployed.modules():
        assert not isinstance(module, torch.nn.LayerNorm) or module.weight is None


@pytest.mark.parametrize('family', [ShuffleDeiT, ShuffleT2TViT])
def test_attention_scores_are_never_stored(family):
    # 50 x 84 patches: an image of 800 x 1344.
    model = family(arch=next(iter(family.arch_settings)))
    block = model.stages[0].blocks[0]
    tokens = torch.randn(1, 1 + 50 * 84, model.out_channels[0], requires_grad=True)
    with LargestTensor() as largest:
        block(tokens).sum().backward()
    assert largest.elements < tokens.shape[1] ** 2 / 4


def test_performer_is_kernel_attention():
    performer = TokenPerformer(10, 8).eval()
    randomise_vectors(performer)
    x = torch.randn(1, 6, 10)
    with torch.no_grad():
        output = performer(x)[0]
        key, query, value = performer.kqv(performer.norm1(x))[0].double().split(8, dim=-1)
        features = performer.random_features.double()

        def kernel(a: torch.Tensor) -> torch.Tensor:
            return torch.stack([(w @ a - a @ a / 2).exp() / 2 for w in features])  # root of 4

        rows = []
        for i in range(6):
            scores = torch.stack([kernel(query[i]) @ kernel(key[j]) for j in range(6)])
            rows.append(scores @ value / (scores.sum() + 1e-8))
        y = value.float() + performer.proj(torch.stack(rows).float())
        expected = y + performer.mlp(performer.norm2(y))
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def test_random_features_are_orthogonal_and_fixed():
    performer = TokenPerformer(10, 64)
    features = performer.random_features
    assert features.shape == (32, 64)
    torch.testing.assert_close(features @ features.t(), 32 * torch.eye(32), rtol=0, atol=1e-4)
    assert 'random_features' not in dict(performer.named_parameters())
    assert 'random_features' in performer.state_dict()


def test_performer_survives_large_sums_in_half_precision():
    performer = TokenPerformer(10, 64).eval()
    x = 3 * torch.randn(1, 20_000, 10)
    with torch.no_grad():
        expected = performer(x)
        with torch.autocast('cpu', torch.float16):
            output = performer(x)
    assert largest_deviation([output.float()], [expected]) < 0.05


def test_sinusoid_table():
    table = sinusoid_table(197, 512)
    assert table.shape == (197, 512)
    for position, channel in [(0, 0), (0, 1), (5, 2), (5, 3), (196, 510), (196, 511)]:
        angle = position / 10000 ** (2 * (channel // 2) / 512)
        expected = math.cos(angle) if channel % 2 else math.sin(angle)
        assert table[position, channel].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize('arch', ['7', '10', '12'])
def test_depths_of_t2t_vit(arch):
    model = ShuffleT2TViT(arch=arch)
    assert sum(len(stage.blocks) for stage in model.stages) == int(arch)
