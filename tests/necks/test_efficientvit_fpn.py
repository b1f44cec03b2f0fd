"""`EfficientViTFPN` by its rules, in whole models, and with the weights of released detectors."""

import copy

import pytest
import torch
from helpers.repository import REPOSITORY
from mmengine.config import Config
from torch.nn import functional as F

from lightvit_mm.necks import EfficientViTFPN
from lightvit_mm.registry import MODELS

IN_CHANNELS = [8, 12, 20]
RETINANET = {'num_outs': 5, 'add_extra_convs': 'on_input', 'num_extra_trans_convs': 1}
MASK_RCNN = {'num_outs': 5, 'num_extra_trans_convs': 2}
NO_EXTRAS = {'num_outs': 3}


def build(**kwargs) -> EfficientViTFPN:
    neck = EfficientViTFPN(in_channels=IN_CHANNELS, out_channels=16, **kwargs)
    for name, parameter in neck.named_parameters():
        if name.endswith('bias'):
            torch.nn.init.normal_(parameter)
    return neck


def inputs(*sizes: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(2, c, *s) for c, s in zip(IN_CHANNELS, sizes, strict=True))


def by_the_rules(weights, maps, num_finer, num_coarser):
    """The official neck, written out, for three inputs and coarser levels from the input."""

    def conv(name, x, **kwargs):
        return F.conv2d(x, weights[f'{name}.conv.weight'], weights[f'{name}.conv.bias'], **kwargs)

    fine, middle, coarse = (conv(f'lateral_convs.{i}', x) for i, x in enumerate(maps))
    middle = middle + F.interpolate(coarse, size=middle.shape[2:])
    fine = fine + F.interpolate(middle, size=fine.shape[2:])
    outs = [conv(f'fpn_convs.{i}', x, padding=1) for i, x in enumerate((fine, middle, coarse))]
    x = maps[-1]
    for i in range(num_coarser):
        x = conv(f'fpn_convs.{3 + i}', x, padding=1, stride=2)
        outs.append(x)
    for i in range(num_finer):
        name = f'extra_trans_convs.{i}.conv'
        fine = F.conv_transpose2d(fine, weights[f'{name}.weight'], weights[f'{name}.bias'], 2)
        outs.insert(0, conv(f'extra_fpn_convs.{num_finer - 1 - i}', fine, padding=1))
    return outs


@pytest.mark.parametrize(
    'sizes', [((8, 12), (4, 6), (2, 3)), ((7, 9), (4, 5), (2, 3))], ids=['even', 'odd']
)
@pytest.mark.parametrize(
    ('settings', 'num_finer', 'num_coarser'),
    [
        (RETINANET, 1, 1),
        (MASK_RCNN, 2, 0),
        (NO_EXTRAS, 0, 0),
        ({'num_outs': 6, 'add_extra_convs': True, 'num_extra_trans_convs': 1}, 1, 2),
        ({'num_outs': 6, 'num_extra_trans_convs': 3}, 3, 0),
    ],
)
def test_outputs_follow_the_rules(settings, num_finer, num_coarser, sizes):
    neck, maps = build(**settings), inputs(*sizes)
    given = [x.clone() for x in maps]
    outs = neck(maps)
    expected = by_the_rules(neck.state_dict(), maps, num_finer, num_coarser)
    assert isinstance(outs, tuple)
    for out, wanted in zip(outs, expected, strict=True):
        torch.testing.assert_close(out, wanted)
    finest = [(sizes[0][0] << i, sizes[0][1] << i) for i in range(num_finer, 0, -1)]
    assert [tuple(x.shape[2:]) for x in outs][: num_finer + 3] == [*finest, *sizes]
    assert all(torch.equal(x, y) for x, y in zip(maps, given, strict=True))


def test_names_and_shapes_of_the_released_detectors():
    def shapes(settings):
        neck = EfficientViTFPN([128, 256, 384], 256, start_level=0, **settings)
        return {name: tuple(value.shape) for name, value in neck.state_dict().items()}

    def layer(name, *shape):
        return {f'{name}.conv.weight': shape, f'{name}.conv.bias': (256,)}

    common = {
        **layer('lateral_convs.0', 256, 128, 1, 1),
        **layer('lateral_convs.1', 256, 256, 1, 1),
        **layer('lateral_convs.2', 256, 384, 1, 1),
        **layer('fpn_convs.0', 256, 256, 3, 3),
        **layer('fpn_convs.1', 256, 256, 3, 3),
        **layer('fpn_convs.2', 256, 256, 3, 3),
        **layer('extra_trans_convs.0', 256, 256, 2, 2),
        **layer('extra_fpn_convs.0', 256, 256, 3, 3),
    }
    assert shapes(RETINANET) == {**common, **layer('fpn_convs.3', 256, 384, 3, 3)}
    assert shapes(MASK_RCNN) == {
        **common,
        **layer('extra_trans_convs.1', 256, 256, 2, 2),
        **layer('extra_fpn_convs.1', 256, 256, 3, 3),
    }


def test_sources_of_coarser_levels():
    maps = inputs((8, 8), (4, 4), (3, 3))
    neck = build(num_outs=5)
    outs = neck(maps)
    assert torch.equal(outs[3], outs[2][..., ::2, ::2])
    assert torch.equal(outs[4], outs[2][..., ::4, ::4])

    neck = build(num_outs=4, add_extra_convs='on_output')
    outs = neck(maps)
    torch.testing.assert_close(outs[3], neck.fpn_convs[3](outs[2]))

    neck = build(num_outs=4, add_extra_convs='on_lateral')
    outs = neck(maps)
    torch.testing.assert_close(outs[3], neck.fpn_convs[3](neck.lateral_convs[2](maps[2])))


def test_start_level():
    neck, maps = (
        build(num_outs=3, start_level=1, num_extra_trans_convs=1),
        inputs((8, 8), (4, 4), (2, 2)),
    )
    before = neck(maps)
    after = neck((maps[0] + 1, *maps[1:]))
    assert [x.shape[-1] for x in before] == [8, 4, 2]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_initialisation():
    """Xavier for the convolutions, Kaiming for the transposed ones, zero for every bias."""
    neck = EfficientViTFPN([128, 256, 384], 256, **RETINANET)
    at_construction = copy.deepcopy(neck.state_dict())
    neck.init_weights()
    for name, value in neck.state_dict().items():
        if name.endswith('bias'):
            assert not value.any(), name
        elif name.startswith('extra_trans'):
            assert torch.equal(value, at_construction[name])
            assert value.std().item() == pytest.approx((2 / (256 * 4)) ** 0.5, rel=0.02)
        else:
            fan_out, fan_in = value[:, 0].numel(), value[0].numel()
            bound = (6 / (fan_in + fan_out)) ** 0.5
            assert value.abs().max().item() == pytest.approx(bound, rel=0.01), name
            assert value.std().item() == pytest.approx(bound / 3**0.5, rel=0.02), name


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'num_outs': 2}, 'num_outs=2'),
        ({'num_outs': 4, 'num_extra_trans_convs': 2}, 'num_extra_trans_convs=2'),
        ({'num_outs': 3, 'start_level': 3}, 'start_level=3'),
        ({'num_outs': 4, 'add_extra_convs': 'on_top'}, "'on_input', 'on_lateral', 'on_output'"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_wrong_number_of_inputs():
    with pytest.raises(ValueError, match='2 inputs for in_channels'):
        build(**NO_EXTRAS)(inputs((8, 8), (4, 4), (2, 2))[:2])


def test_every_parameter_has_a_gradient_and_compiles():
    maps = inputs((7, 9), (4, 5), (2, 3))
    neck = build(**RETINANET)
    sum(out.square().mean() for out in neck(maps)).backward()
    assert all(p.grad.any() for p in neck.parameters())
    with torch.no_grad():
        compiled = torch.compile(neck, fullgraph=True, backend='eager')(maps)
        exported = torch.export.export(neck, (maps,)).module()(maps)
        for a, b, c in zip(neck(maps), compiled, exported, strict=True):
            torch.testing.assert_close(b, a)
            torch.testing.assert_close(c, a)


def detector(head: str, arch: str, channels: list[int], neck: dict) -> torch.nn.Module:
    config = Config.fromfile(REPOSITORY / f'configs/_base_/{head}.py')
    config.merge_from_dict(
        {
            'model.backbone': {'type': 'EfficientViT', 'arch': arch},
            'model.neck': {
                '_delete_': True,
                'type': 'EfficientViTFPN',
                'in_channels': channels,
                'out_channels': 256,
                **neck,
            },
        }
    )
    return MODELS.build({**config.model, '_scope_': 'mmdet'})


# Millions of parameters, counted from the authors' code.
@pytest.mark.parametrize(
    ('arch', 'channels', 'head', 'neck', 'parameters'),
    [
        ('m4', [128, 256, 384], 'retinanet', RETINANET, 18.587),
        ('m4', [128, 256, 384], 'mask_rcnn', MASK_RCNN, 29.635),
        ('m5', [192, 288, 384], 'retinanet', RETINANET, 22.281),
        ('m5', [192, 288, 384], 'mask_rcnn', MASK_RCNN, 33.330),
    ],
)
def test_whole_models(arch, channels, head, neck, parameters):
    model = detector(head, arch, channels, neck).eval()
    count = sum(parameter.numel() for parameter in model.parameters())
    assert round(count / 1e6, 3) == parameters

    head = model.bbox_head if head == 'retinanet' else model.rpn_head
    strides = [stride for stride, _ in head.prior_generator.strides]
    with torch.no_grad():
        levels = model.extract_feat(torch.randn(1, 3, 128, 256))
    assert [tuple(x.shape[1:]) for x in levels] == [(256, 128 // s, 256 // s) for s in strides]


def test_found_from_any_openmmlab_registry():
    from mmdet.registry import MODELS as MMDET_MODELS
    from mmseg.registry import MODELS as MMSEG_MODELS

    config = {'type': 'EfficientViTFPN', 'in_channels': [8], 'out_channels': 8, 'num_outs': 1}
    for registry in (MODELS, MMDET_MODELS, MMSEG_MODELS):
        assert type(registry.build(config)) is EfficientViTFPN
