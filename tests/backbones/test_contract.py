"""What `PyramidBackbone` promises.

The cases are every variant where variants differ, KINDS where options change the code that runs,
and a miniature of each family, or its smallest variant by name, elsewhere.
"""

import copy
import math

import pytest
import torch
from helpers.variants import (
    KINDS,
    SMALLEST,
    STRUCTURES,
    TINY,
    UNUSUAL,
    largest_deviation,
    randomise_norms,
)
from torch.nn.modules.batchnorm import _BatchNorm

from lightvit_mm.backbones import EdgeViT
from lightvit_mm.registry import MODELS

SIZES = [(1, 224, 224), (2, 97, 131), (2, 33, 47), (1, 1, 1)]


@pytest.mark.parametrize('build', STRUCTURES)
def test_shapes_at_any_size(build):
    model = build().eval()
    for batch, height, width in SIZES:
        with torch.no_grad():
            outputs = model(torch.randn(batch, 3, height, width))
        for output, channels, stride in zip(
            outputs, model.out_channels, model.out_strides, strict=True
        ):
            assert output.shape == (
                batch,
                channels,
                math.ceil(height / stride),
                math.ceil(width / stride),
            )
            assert output.isfinite().all()
            assert output.is_contiguous()


@pytest.mark.parametrize(('family', 'arch'), TINY)
def test_gradients_reach_the_stages_in_their_layout(family, arch):
    model = family(arch=arch)
    maps, gradients = [], []

    def watch(stage, images, output):
        output.register_hook(gradients.append)
        maps.append(output)

    model.stages[-1].register_forward_hook(watch)
    # Heads return gradients that are contiguous as (N, C, H, W).
    outputs = model(torch.randn(2, 3, 128, 192))
    torch.autograd.backward(outputs, [torch.randn(output.shape) for output in outputs])
    (map_,), (gradient,) = maps, gradients
    assert all(output.is_contiguous() for output in outputs)
    assert gradient.stride() == map_.stride()
    if family.__name__ in ('EdgeViT', 'MobileViT', 'RepViT', 'EfficientViT'):
        assert gradient.is_contiguous(memory_format=torch.channels_last)
        assert not gradient.is_contiguous()


def test_roi_align_reads_the_pyramid_right():
    ops = pytest.importorskip('mmcv.ops', exc_type=ImportError)
    model = EdgeViT(arch='xxs').eval()
    neck = torch.nn.Conv2d(model.out_channels[0], 8, 3, padding=1)
    with torch.no_grad():
        features = neck(model(torch.randn(1, 3, 64, 96))[0])
    # A cell of four pixels, sampled at their centres.
    region = torch.tensor([[0.0, 8.0, 4.0, 16.0, 12.0]])
    cell = ops.roi_align(features, region, (1, 1), 0.25, 2, 'avg', True)
    torch.testing.assert_close(cell[0, :, 0, 0], features[0, :, 1:3, 2:4].mean((1, 2)))


@pytest.mark.parametrize(('family', 'arch'), TINY)
def test_long_side_of_2048(family, arch):
    model = family(arch=arch).eval()
    with torch.no_grad():
        outputs = model(torch.randn(1, 3, 40, 2048))
    assert [o.shape[-1] for o in outputs] == [2048 // s for s in model.out_strides]


@pytest.mark.parametrize('build', STRUCTURES)
def test_every_parameter_has_a_gradient(build):
    model = build().train()
    randomise_norms(model)  # some residual branches begin with a norm weight of 0
    sum(output.square().mean() for output in model(torch.randn(2, 3, 64, 96))).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@pytest.mark.parametrize('build', KINDS)
def test_checkpointing_changes_nothing(build):
    plain = build(drop_path_rate=0.2).train()
    saving = copy.deepcopy(plain)
    for stage in saving.stages:
        stage.with_cp = True
    x = torch.randn(2, 3, 64, 64)
    outputs = []
    for model in (plain, saving):
        torch.manual_seed(1)
        outputs.append(model(x))
        sum(o.square().mean() for o in outputs[-1]).backward()
    assert largest_deviation(*outputs) < 1e-6
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=name)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    assert build(with_cp=True).stages[0].with_cp


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2])
@pytest.mark.parametrize('norm_eval', [False, True])
@pytest.mark.parametrize(('family', 'arch'), TINY)
def test_freezing(family, arch, frozen_stages, norm_eval):
    model = family(arch=arch, frozen_stages=frozen_stages, norm_eval=norm_eval)
    assert model.train() is model
    frozen = ['stem', *(f'stages.{i}' for i in range(frozen_stages))][: frozen_stages + 1]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sum(output.square().mean() for output in model(torch.randn(2, 3, 64, 64))).backward()
    for name, parameter in model.named_parameters():
        is_frozen = any(name.startswith(f'{part}.') for part in frozen)
        assert parameter.requires_grad is not is_frozen, name
        assert (parameter.grad is None) is is_frozen, name
    for name, module in model.named_modules():
        is_frozen = any(f'{name}.'.startswith(f'{part}.') for part in frozen)
        if is_frozen:
            assert not module.training, name
        elif isinstance(module, _BatchNorm):
            assert module.training is not norm_eval, name
            moved = not torch.equal(module.running_mean, before[f'{name}.running_mean'])
            assert moved is not norm_eval, name
    assert not model.eval().training


@pytest.mark.parametrize('build', STRUCTURES)
def test_deploy_form_computes_the_same(build):
    model = build().eval()
    randomise_norms(model)
    deployed = copy.deepcopy(model).switch_to_deploy()
    x = torch.randn(1, 3, 65, 99)
    with torch.no_grad():
        expected = model(x)
        assert largest_deviation(deployed(x), expected) < 1e-4
    assert not [n for n, m in deployed.named_modules() if isinstance(m, _BatchNorm)]
    names = list(deployed.state_dict())
    assert deployed.switch_to_deploy() is deployed
    assert list(deployed.state_dict()) == names
    with torch.no_grad():
        assert largest_deviation(deployed(x), expected) < 1e-4


@pytest.mark.parametrize('build', KINDS)
def test_saving_and_loading_either_form(build, tmp_path):
    model = build().eval()
    randomise_norms(model)
    deployed = copy.deepcopy(model).switch_to_deploy()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
    for saved in (model, deployed):
        file = tmp_path / 'weights.pth'
        torch.save(saved.state_dict(), file)
        fresh = build(deploy=True, init_cfg={'type': 'Pretrained', 'checkpoint': str(file)}).eval()
        fresh.init_weights()
        with torch.no_grad():
            assert largest_deviation(fresh(x), expected) < 1e-4
    again = build().eval()
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert largest_deviation(again(x), expected) == 0
    with pytest.raises(RuntimeError, match='deploy=True'):
        again.load_state_dict(deployed.state_dict())


@pytest.mark.parametrize(('family', 'arch'), TINY)
def test_out_indices(family, arch):
    levels = len(family.level_strides)
    full = family(arch=arch).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = full(x)
    for indices in [(0,), (-1,), (1, -1), [0, levels - 1]]:
        given = copy.copy(indices)
        model = family(arch=arch, out_indices=indices).eval()
        model.load_state_dict(full.state_dict())
        positive = tuple(i % levels for i in indices)
        assert model.out_indices == positive
        assert model.out_channels == tuple(full.out_channels[i] for i in positive)
        assert model.out_strides == tuple(full.out_strides[i] for i in positive)
        with torch.no_grad():
            assert largest_deviation(model(x), [expected[i] for i in positive]) == 0
        assert indices == given
    for indices in [(levels,), (-levels - 1,), (1, 0), (0, 0), ()]:
        with pytest.raises(ValueError, match='out_indices'):
            family(arch=arch, out_indices=indices)


@pytest.mark.parametrize(('family', 'arch'), SMALLEST)
def test_bad_arguments(family, arch):
    with pytest.raises(ValueError, match=f"'{arch}'"):
        family(arch='huge')
    with pytest.raises(TypeError, match='arch'):
        family(arch=3)
    with pytest.raises(TypeError, match='depth_multiplier'):
        family(arch=arch, depth_multiplier=2)
    with pytest.raises(ValueError, match='frozen_stages=9'):
        family(arch=arch, frozen_stages=9)
    with pytest.raises(ValueError, match='drop_path_rate'):
        family(arch=arch, drop_path_rate=1.0)
    with pytest.raises(ValueError, match='needs exactly the fields'):
        family(arch={'depths': (1, 1, 1, 1)})
    with pytest.raises(ValueError, match='depths of a custom arch needs'):
        family(arch={**family.arch_settings[arch], 'depths': (1,)})


@pytest.mark.parametrize(('family', 'arch'), SMALLEST)
def test_custom_arch(family, arch):
    model = family(arch=dict(family.arch_settings[arch])).eval()
    assert model.arch_name == 'custom'
    assert model.out_channels == family(arch=arch).out_channels


@pytest.mark.parametrize('build', STRUCTURES)
def test_norm_cfg_reaches_every_batch_norm(build):
    with torch.device('meta'):
        model = build(norm_cfg={'type': 'BN', 'eps': 0.5, 'momentum': 0.25})
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert {(m.eps, m.momentum) for m in norms} <= {(0.5, 0.25)}
    if not torch.cuda.is_available():
        with torch.device('meta'):
            model = build(norm_cfg={'type': 'SyncBN'})
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        assert {type(m) for m in norms} <= {torch.nn.BatchNorm2d}


@pytest.mark.parametrize('build', KINDS)
def test_drop_path(build):
    model = build(drop_path_rate=0.9)
    randomise_norms(model)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(model.train()(x)[-1], model(x)[-1])
        assert torch.equal(model.eval()(x)[-1], model(x)[-1])
    rates = [rate for stage in model.drop_path_rates() for rate in stage]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.9)
    assert rates == sorted(rates)


@pytest.mark.parametrize('build', STRUCTURES)
def test_layer_depth(build):
    with torch.device('meta'):
        model = build()
    depths = [
        model.get_layer_depth(f'backbone.{n}', 'backbone.') for n, _ in model.named_parameters()
    ]
    num_layers = sum(len(stage.blocks) for stage in model.stages) + 2
    assert {count for _, count in depths} == {num_layers}
    assert {layer for layer, _ in depths} >= set(range(num_layers - 1))


@pytest.mark.parametrize(('family', 'arch'), SMALLEST)
def test_autocast(family, arch):
    model = family(arch=arch).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast('cpu', torch.bfloat16):
            rounded = model(x)
        # On average over a level: bfloat16 keeps 8 bits, so that single large values move more.
        for output, level in zip(rounded, expected, strict=True):
            assert (output.float() - level).square().mean().sqrt() < 0.04 * level.std()


# tests/export and tests/engine/test_compile_backbone.py have the others.
@pytest.mark.parametrize('build', UNUSUAL)
def test_export_and_compile(build):
    model = build().eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        exported = torch.export.export(model, (x,)).module()
        assert largest_deviation(exported(x), expected) < 1e-4
        torch._dynamo.reset()  # else the graphs of other variants count as recompilations
        compiled = torch.compile(model, fullgraph=True, backend='eager')
        assert largest_deviation(compiled(x), expected) < 1e-4


@pytest.mark.parametrize(('family', 'arch'), TINY)
def test_built_from_any_openmmlab_registry(family, arch):
    from mmdet.registry import MODELS as MMDET_MODELS
    from mmseg.registry import MODELS as MMSEG_MODELS

    for registry in (MODELS, MMDET_MODELS, MMSEG_MODELS):
        assert type(registry.build({'type': family.__name__, 'arch': arch})) is family


@pytest.mark.parametrize(('family', 'arch'), SMALLEST)
def test_random_weights_are_announced(family, arch, mm_log):
    family(arch=arch).init_weights()
    assert any(f'{family.__name__} {arch}: no pretrained weights' in line for line in mm_log)
