"""RepViT against its authors' code and timm's."""

import copy

import pytest
import torch
from helpers import golden_files, official_repvit
from helpers.variants import largest_deviation, randomise_norms
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lightvit_mm.backbones import RepViT

# Entries of the authors' list of blocks that their COCO and ADE20K configs return; those of the
# variants without such configs follow from the depths, and are timm's levels in the golden files.
OFFICIAL_TAPS = {
    'm0_6': ([1, 4, 14, 17], [2, 5, 15, 17]),
    'm0_9': ([2, 6, 22, 26], [3, 7, 23, 26]),
    'm1_0': ([2, 6, 22, 26], [3, 7, 23, 26]),
    'm1_1': ([2, 6, 20, 24], [3, 7, 21, 24]),
    'm1_5': ([4, 10, 36, 42], [5, 11, 37, 42]),
    'm2_3': ([6, 14, 50, 54], [7, 15, 51, 54]),
    'm1': ([2, 6, 22, 26], [3, 7, 23, 26]),
    'm2': ([2, 6, 20, 24], [3, 7, 21, 24]),
    'm3': ([4, 10, 30, 34], [5, 11, 31, 34]),
}
V1 = ('m1', 'm2', 'm3')


def official_weights(arch: str, legacy: bool = False) -> dict[str, torch.Tensor]:
    return official_repvit.weights(**RepViT.arch_settings[arch], legacy=legacy)


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize(
    'name', ['repvit_m0_9', 'repvit_m1_1', 'timm_repvit_m0_9', 'timm_repvit_m3']
)
def test_golden_outputs(name, deploy):
    golden = golden_files.read(name)
    arch = name.split('repvit_')[1]
    models = {
        tap: RepViT(arch=arch, tap=tap, deploy=deploy).eval() for tap in ('stage', 'pre_block')
    }
    for model in models.values():
        model.load_state_dict(golden_files.weights(golden))
    for run in golden['runs']:
        tap = 'pre_block' if run.get('taps') == OFFICIAL_TAPS[arch][1] else 'stage'
        assert run.get('taps', OFFICIAL_TAPS[arch][0]) in OFFICIAL_TAPS[arch]
        with torch.no_grad():
            levels = models[tap](golden_files.image(run['input']))
        for level, expected in zip(levels, run['outputs'], strict=True):
            assert golden_files.deviation(level, expected) < 1e-5


@pytest.mark.parametrize('arch', ['m0_9', 'm1_1'])
def test_the_second_opinion_itself(arch):
    golden = golden_files.read(f'repvit_{arch}')
    weights = official_weights(arch)
    assert {key: list(value.shape) for key, value in weights.items()} == golden['state_dict']
    for run in golden['runs'][:2]:
        maps = official_repvit.outputs(weights, golden_files.image(run['input']))
        for tap, expected in zip(run['taps'], run['outputs'], strict=True):
            assert golden_files.deviation(maps[tap], expected) < 1e-5


@pytest.mark.parametrize('arch', RepViT.arch_settings)
def test_levels_are_the_taps_of_the_official_configs(arch):
    weights = official_weights(arch, legacy=arch in V1)
    x = torch.randn(1, 3, 70, 90)
    maps = official_repvit.outputs(weights, x)
    assert len(maps) - 1 == OFFICIAL_TAPS[arch][0][-1]
    for tap, indices in zip(('stage', 'pre_block'), OFFICIAL_TAPS[arch], strict=True):
        model = RepViT(arch=arch, tap=tap).eval()
        model.load_state_dict(weights)
        expected = [maps[index] for index in indices]
        with torch.no_grad():
            assert largest_deviation(model(x), expected) < 1e-5
            assert largest_deviation(model.switch_to_deploy()(x), expected) < 1e-5


# Counted from the authors' code, without a classifier.
@pytest.mark.parametrize(
    ('arch', 'training', 'folded'),
    [
        ('m0_6', 2_165_652, 2_147_072),
        ('m0_9', 4_717_792, 4_682_056),
        ('m1_0', 6_403_004, 6_361_312),
        ('m1_1', 7_774_864, 7_731_312),
        ('m1_5', 13_616_384, 13_536_992),
        ('m2_3', 22_404_232, 22_285_792),
        ('m1', 4_717_792, 4_682_056),
        ('m2', 7_774_864, 7_731_312),
        ('m3', 9_661_632, 9_602_720),
    ],
)
def test_parameter_count(arch, training, folded):
    model = RepViT(arch=arch)
    assert count(model) == training
    assert count(model.switch_to_deploy()) == folded


# The authors' logs and tables count a classifier of 1000 classes. While training, a head is a
# BatchNorm and a linear layer, and a second one serves the distillation; folded, it is one linear
# layer. They publish no count of m0_6.
@pytest.mark.parametrize(
    ('arch', 'two_heads', 'one_head', 'folded'),
    [
        ('m0_9', 5_489_328, 5_103_560, 5_067_056),
        ('m1_0', 7_302_796, 6_852_900, 6_810_312),
        ('m1_1', 8_802_912, 8_288_888, 8_244_312),
        ('m1_5', 14_644_432, 14_130_408, 14_049_992),
        ('m2_3', 23_688_792, 23_046_512, 22_926_792),
        ('m3', 10_689_680, None, 10_115_720),
    ],
)
def test_parameter_count_with_classifier(arch, two_heads, one_head, folded):
    model = RepViT(arch=arch)
    linear = 1000 * model.out_channels[-1] + 1000
    head = linear + 2 * model.out_channels[-1]
    assert count(model) + 2 * head == two_heads
    assert one_head in (None, count(model) + head)
    assert count(model.switch_to_deploy()) + linear == folded


def test_old_names():
    settings = RepViT.arch_settings
    assert (settings['m1'], settings['m2']) == (settings['m0_9'], settings['m1_1'])


def test_hidden_width_of_the_narrowest_squeeze_excitation():
    # A quarter of 40 is rounded down, though that takes off more than a tenth.
    assert RepViT(arch='m0_6').stages[0].blocks[0].se.fc1.out_channels == 8


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ('arch', 'giga_macs'),
    [
        ('m0_6', 0.385),
        ('m0_9', 0.816),
        ('m1_0', 1.106),
        ('m1_1', 1.337),
        ('m1_5', 2.274),
        ('m2_3', 4.516),
        ('m3', 1.859),
    ],
)
def test_operations_of_the_deploy_form(arch, giga_macs):
    with torch.device('meta'):
        model = RepViT(arch=arch, deploy=True).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 224, 224))
    head = 1000 * model.out_channels[-1]
    assert counter.get_total_flops() / 2 + head == pytest.approx(giga_macs * 1e9, rel=1e-3)


def test_squeeze_excitation_is_in_every_other_block():
    model = RepViT(arch='m1_5')
    for stage in model.stages:
        assert [hasattr(block, 'se') for block in stage.blocks] == [
            number % 2 == 0 for number in range(len(stage.blocks))
        ]
    assert not [
        name
        for name, _ in model.named_modules()
        if 'downsample' in name and 'se' in name.split('.')
    ]


def test_deploy_form_is_convolutions_alone():
    model = RepViT(arch='m0_6').switch_to_deploy()
    token_mixer = model.stages[1].downsample.pre_block.token_mixer
    assert [name for name, _ in token_mixer.named_parameters()] == ['conv.weight', 'conv.bias']
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    blocks, squeezed, reductions = 11 + 3, 1 + 1 + 4 + 1, 3
    assert len(convolutions) == 2 + 3 * blocks + 2 * squeezed + 4 * reductions
    assert sum(p.numel() for c in convolutions for p in c.parameters(False)) == count(model)


def test_folding_in_training_mode_keeps_the_outputs_of_eval_mode():
    model = RepViT(arch='m0_6').eval()
    randomise_norms(model)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        assert largest_deviation(model.train()(x), expected) > 0.1
        model.eval()
        randomise_norms(model)
        expected = model(x)
        assert largest_deviation(model.train().switch_to_deploy()(x), expected) < 1e-5


def test_depthwise_unit_equals_its_three_branches():
    unit = RepViT(arch='m0_6').stages[0].blocks[0].token_mixer
    randomise_norms(unit)
    x = torch.randn(2, 40, 9, 7)
    for mode in (True, False):
        unit.train(mode)
        branch = F.conv2d(x, unit.conv1x1.weight, unit.conv1x1.bias, groups=40)
        expected = unit.norm(unit.conv(x) + branch + x)
        torch.testing.assert_close(unit(x), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(unit.conv1x1(x), x)


def test_branches_start_silent():
    model = RepViT(arch='m0_6')
    mixers = {
        name: m for name, m in model.named_modules() if name.endswith(('channel_mixer', 'ffn'))
    }
    assert len(mixers) == 11 + 3 + 3
    assert not any(mixer.conv2.norm.weight.any() for mixer in mixers.values())


def test_unknown_tap():
    with pytest.raises(ValueError, match="'stage', 'pre_block'"):
        RepViT(arch='m0_6', tap='downsample')


@pytest.mark.parametrize('out_indices', [(0,), (1,), (0, 2), (2, 3), (3,), (0, 1, 2, 3), (-2,)])
def test_tap_before_the_downsampling_builds_what_it_needs(out_indices):
    full = RepViT(arch='m0_6', tap='pre_block').eval()
    randomise_norms(full)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        levels = full(x)
    model = RepViT(arch='m0_6', tap='pre_block', out_indices=out_indices).eval()
    model.load_state_dict(full.state_dict())
    wanted = [levels[index] for index in model.out_indices]
    with torch.no_grad():
        outputs = model(x)
    assert largest_deviation(outputs, wanted) == 0
    assert model.out_channels == tuple(level.shape[1] for level in wanted)
    assert model.out_strides == tuple(64 // level.shape[2] for level in wanted)

    sum(output.square().mean() for output in model.train()(x)).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
    last = model.out_indices[-1]
    assert len(model.stages) == min(last + 2, 4)
    built = sum(RepViT.arch_settings['m0_6']['depths'][: last + 1])
    depths = [model.get_layer_depth(name) for name, _ in model.named_parameters()]
    assert {layers for _, layers in depths} == {built + 2}
    assert {depth for depth, _ in depths} == set(range(built + 1 + (last < 3)))

    with torch.no_grad():
        assert largest_deviation(model.eval().switch_to_deploy()(x), model(x)) == 0
        deployed = RepViT(arch='m0_6', tap='pre_block', out_indices=out_indices, deploy=True).eval()
        deployed.load_state_dict(full.state_dict())
        assert largest_deviation(deployed(x), wanted) < 1e-5
        deployed.load_state_dict(full.switch_to_deploy().state_dict())
        assert largest_deviation(deployed(x), wanted) < 1e-5


def test_both_taps_share_their_weights_and_the_last_level():
    stage = RepViT(arch='m0_6').eval()
    randomise_norms(stage)
    pre_block = RepViT(arch='m0_6', tap='pre_block').eval()
    pre_block.load_state_dict(stage.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before, after = stage(x), pre_block(x)
    assert torch.equal(before[3], after[3])
    for index in range(3):
        block = stage.stages[index + 1].downsample.pre_block
        with torch.no_grad():
            assert torch.equal(block(before[index]), after[index])
        assert not torch.allclose(before[index], after[index])


@pytest.mark.parametrize('frozen_stages', [0, 1, 2, 3, 4])
@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (0, 1)])
@pytest.mark.parametrize('tap', ['stage', 'pre_block'])
def test_frozen_levels_stay_what_they_are(tap, out_indices, frozen_stages):
    model = RepViT(arch='m0_6', tap=tap, out_indices=out_indices, frozen_stages=frozen_stages)
    randomise_norms(model)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model.eval()(x)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    if trained:
        optimizer = torch.optim.SGD(trained, lr=0.1)
        sum(output.square().mean() for output in model(x)).backward()
        optimizer.step()
    with torch.no_grad():
        after = model.eval()(x)
    kept = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert kept == [index < frozen_stages for index in model.out_indices]
    # One block beyond the frozen ones is trained, so nothing more than promised is frozen.
    first_trained = (
        'blocks.0' if tap == 'pre_block' or frozen_stages == 0 else 'downsample.pre_block'
    )
    if frozen_stages < model.num_stages:
        part = model.get_submodule(f'stages.{frozen_stages}.{first_trained}')
        assert all(p.requires_grad for p in part.parameters())


def test_statistics_stay_and_affine_parameters_train_with_norm_eval():
    model = RepViT(arch='m0_6', norm_eval=True)
    randomise_norms(model)
    before = copy.deepcopy(model.state_dict())
    sum(output.square().mean() for output in model.train()(torch.randn(2, 3, 64, 64))).backward()
    norms = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert len(norms) == 2 + 4 * (11 + 3) + 4 * 3
    for name, norm in norms.items():
        assert torch.equal(norm.running_mean, before[f'{name}.running_mean'])
        assert norm.weight.grad.any(), name


def test_tap_before_the_downsampling_recomputes_exports_and_compiles():
    plain = RepViT(arch='m0_6', tap='pre_block', out_indices=(0, 1, 2), drop_path_rate=0.2)
    randomise_norms(plain)
    saving = copy.deepcopy(plain)
    for stage in saving.stages:
        stage.with_cp = True
    x = torch.randn(2, 3, 32, 32)
    outputs = []
    for model in (plain, saving):
        torch.manual_seed(1)
        outputs.append(model.train()(x))
        sum(output.square().mean() for output in outputs[-1]).backward()
    assert largest_deviation(*outputs) < 1e-6
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5, msg=name)
    plain.eval().switch_to_deploy()
    with torch.no_grad():
        expected = plain(x)
        exported = torch.export.export(plain, (x,)).module()
        assert largest_deviation(exported(x), expected) < 1e-5
        compiled = torch.compile(plain, fullgraph=True, backend='eager')
        assert largest_deviation(compiled(x), expected) < 1e-5
