"""The Detectron2 adapter.

Detectron2 is on no package index. `test_real_*` run where it can be imported. Everything else runs
on a stand-in that this file makes: a few classes written from Detectron2's documentation of its
public interface (Backbone, ShapeSpec, FPN, LastLevelMaxPool, LastLevelP6P7, BACKBONE_REGISTRY,
CfgNode). It shows that the adapter keeps to that documentation, not that Detectron2 does.
"""

import importlib
import itertools
import math
import re
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from helpers.repository import REPOSITORY
from helpers.variants import SMALLEST
from torch import nn
from torch.nn import functional

from lightvit_mm.backbones import EfficientViT, RepViT

ADAPTER = 'lightvit_mm.adapters.detectron2'
EXAMPLES = re.findall(
    r'```python\n(.*?)```', (REPOSITORY / 'docs/detectron2.md').read_text(), re.DOTALL
)
REASON = 'Detectron2 is on no package index; these run where it has been built from source'


class CfgNode(dict):
    """Attribute access to a dict."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


@dataclass
class ShapeSpec:
    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None


class Backbone(nn.Module):
    size_divisibility = 0
    padding_constraints = {}


class Registry(dict):
    def register(self):
        return lambda builder: self.setdefault(builder.__name__, builder)


class LastLevelMaxPool(nn.Module):
    num_levels, in_feature = 1, 'p5'

    def forward(self, x):
        return [x[..., ::2, ::2]]


class LastLevelP6P7(nn.Module):
    num_levels = 2

    def __init__(self, in_channels, out_channels, in_feature='res5'):
        super().__init__()
        self.in_feature = in_feature
        self.first = nn.Conv2d(in_channels, out_channels, 3, 2, 1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, 2, 1)

    def forward(self, x):
        first = self.first(x)
        return [first, self.second(first.relu())]


class FPN(Backbone):
    """Documented: levels of doubling stride in, ``p<log2 of stride>`` out, then the top block's."""

    def __init__(
        self, bottom_up, in_features, out_channels, norm='', top_block=None, fuse_type='sum'
    ):
        super().__init__()
        shapes = bottom_up.output_shape()
        strides = [shapes[name].stride for name in in_features]
        assert all(b == 2 * a for a, b in itertools.pairwise(strides))
        self.size_divisibility = strides[-1]
        self.bottom_up, self.in_features, self.top_block = bottom_up, in_features, top_block
        self.lateral = nn.ModuleList(
            nn.Conv2d(shapes[name].channels, out_channels, 1) for name in in_features
        )
        self.smooth = nn.ModuleList(
            nn.Conv2d(out_channels, out_channels, 3, 1, 1) for _ in in_features
        )
        first = int(math.log2(strides[0]))
        levels = range(first, first + len(strides) + top_block.num_levels)
        self.shapes = {f'p{n}': ShapeSpec(channels=out_channels, stride=2**n) for n in levels}

    def output_shape(self):
        return self.shapes

    def forward(self, image):
        features = self.bottom_up(image)
        maps = [
            lateral(features[name])
            for lateral, name in zip(self.lateral, self.in_features, strict=True)
        ]
        for i in reversed(range(len(maps) - 1)):
            maps[i] = maps[i] + functional.interpolate(maps[i + 1], scale_factor=2.0)
        maps = [smooth(x) for smooth, x in zip(self.smooth, maps, strict=True)]
        named = dict(zip(self.shapes, maps, strict=False))
        maps += self.top_block({**named, **features}[self.top_block.in_feature])
        return dict(zip(self.shapes, maps, strict=True))


@pytest.fixture
def adapter(monkeypatch):
    """The adapter, imported over the stand-in."""
    contents = {
        'detectron2': {},
        'detectron2.config': {'CfgNode': CfgNode},
        'detectron2.layers': {'ShapeSpec': ShapeSpec},
        'detectron2.modeling': {},
        'detectron2.modeling.backbone': {
            'BACKBONE_REGISTRY': Registry(), 'FPN': FPN, 'Backbone': Backbone,
        },
        'detectron2.modeling.backbone.fpn': {
            'LastLevelMaxPool': LastLevelMaxPool, 'LastLevelP6P7': LastLevelP6P7,
        },
    }  # fmt: skip
    for name, members in contents.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
    yield importlib.import_module(ADAPTER)
    sys.modules.pop(ADAPTER, None)


def config(adapter, family='EdgeViT', arch='xxs', **keys) -> CfgNode:
    fpn = CfgNode(IN_FEATURES=[], OUT_CHANNELS=16, NORM='', FUSE_TYPE='sum')
    cfg = CfgNode(MODEL=CfgNode(FPN=fpn))
    adapter.add_lightvit_config(cfg)
    cfg.MODEL.LIGHTVIT.update(TYPE=family, ARCH=arch)
    assert set(keys) <= set(cfg.MODEL.LIGHTVIT)
    cfg.MODEL.LIGHTVIT.update(keys)
    return cfg


def build(adapter, kind, cfg, channels=3):
    builder = adapter.BACKBONE_REGISTRY[f'build_lightvit_{kind}']
    return builder(cfg, ShapeSpec(channels=channels)).eval()


@torch.no_grad()
def assert_shapes(model, height, width):
    outs, shapes = model(torch.randn(1, 3, height, width)), model.output_shape()
    assert list(outs) == list(shapes)
    for name, out in outs.items():
        size = [math.ceil(side / shapes[name].stride) for side in (height, width)]
        assert list(out.shape) == [1, shapes[name].channels, *size], name


@pytest.mark.parametrize(('family', 'arch'), SMALLEST)
def test_backbone(adapter, family, arch):
    model = build(adapter, 'backbone', config(adapter, family.__name__, arch))
    assert isinstance(model, Backbone)
    names = 'res4 res5 res6' if family is EfficientViT else 'res2 res3 res4 res5'
    assert list(model.output_shape()) == names.split()
    for name, shape in model.output_shape().items():
        assert shape.stride == 2 ** int(name[3:])
    coarsest = 64 if family is EfficientViT else 32
    assert model.size_divisibility == coarsest
    assert model.padding_constraints == {'size_divisibility': coarsest}
    assert_shapes(model, 70, 97)


@pytest.mark.parametrize('kind', ['fpn_backbone', 'retinanet_fpn_backbone'])
@pytest.mark.parametrize(('family', 'arch'), SMALLEST)
def test_fpn(adapter, family, arch, kind):
    model = build(adapter, kind, config(adapter, family.__name__, arch))
    first, last = (4, 7) if family is EfficientViT else (2, 6)
    last += kind == 'retinanet_fpn_backbone'
    assert list(model.output_shape()) == [f'p{n}' for n in range(first, last + 1)]
    assert_shapes(model, model.size_divisibility, 2 * model.size_divisibility)


def test_levels_are_chosen(adapter):
    cfg = config(adapter)
    cfg.MODEL.FPN.IN_FEATURES = ['res3', 'res4', 'res5']
    model = build(adapter, 'retinanet_fpn_backbone', cfg)
    assert list(model.output_shape()) == ['p3', 'p4', 'p5', 'p6', 'p7']
    assert model.top_block.first.in_channels == 288
    assert model.bottom_up.net.out_indices == (1, 2, 3)
    cfg = config(adapter, OUT_FEATURES=['res4'])
    model = build(adapter, 'backbone', cfg)
    assert list(model.output_shape()) == ['res4']
    assert model.size_divisibility == 16
    assert len(model.net.stages) == 3


def test_keys_arrive(adapter):
    cfg = config(adapter, FROZEN_STAGES=1, NORM_EVAL=True, DROP_PATH_RATE=0.25, WITH_CP=True)
    net = build(adapter, 'backbone', cfg).net
    assert (net.frozen_stages, net.norm_eval, net.drop_path_rate, net.with_cp) == (
        1,
        True,
        0.25,
        True,
    )
    assert net.norm_cfg == {'type': 'BN'}


def test_weights(adapter, tmp_path, mm_log):
    source = RepViT(arch='m0_6')
    torch.save(source.state_dict(), tmp_path / 'repvit.pth')
    cfg = config(adapter, 'RepViT', 'm0_6', WEIGHTS=str(tmp_path / 'repvit.pth'))
    net = build(adapter, 'fpn_backbone', cfg).bottom_up.net
    for name, value in source.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name
    assert not [line for line in mm_log if 'no pretrained weights' in line]
    build(adapter, 'backbone', config(adapter))
    assert [line for line in mm_log if 'no pretrained weights' in line]


def test_a_whole_model_is_saved_and_loaded(adapter):
    models = [build(adapter, 'fpn_backbone', config(adapter)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        a, b = (model(image) for model in models)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'family': 'ResNet'}, r"TYPE 'ResNet' is none of 'EdgeViT', .*'ShuffleT2TViT'"),
        ({'arch': 'huge'}, "EdgeViT has no arch 'huge'"),
        ({'OUT_FEATURES': ['res6']}, 'has no res6: its levels are res2, res3, res4, res5'),
        (
            {'family': 'EfficientViT', 'arch': 'm0', 'OUT_FEATURES': ['res2', 'res3', 'res4']},
            'has no res2, res3: its levels are res4, res5, res6',
        ),
    ],
)
def test_mistakes(adapter, change, message):
    with pytest.raises(ValueError, match=message):
        build(adapter, 'backbone', config(adapter, **change))


def test_only_colour_images(adapter):
    with pytest.raises(ValueError, match='3 channels; these have 1'):
        build(adapter, 'backbone', config(adapter), channels=1)


def test_examples_name_keys_that_exist(adapter):
    assert len(EXAMPLES) == 3
    used = re.findall(r'LIGHTVIT\.(\w+)', ''.join(EXAMPLES))
    assert set(used) <= set(config(adapter).MODEL.LIGHTVIT)
    for example in EXAMPLES:
        compile(example, 'docs/detectron2.md', 'exec')
    names = re.findall(r"'(build_lightvit_\w+)'", ''.join(EXAMPLES))
    assert names
    assert set(names) <= set(adapter.BACKBONE_REGISTRY)


@pytest.mark.slow
@pytest.mark.parametrize('example', range(len(EXAMPLES)))
def test_real_training_step_and_prediction(example):
    pytest.importorskip('detectron2', reason=REASON)
    from detectron2.config import instantiate
    from detectron2.modeling import build_model
    from detectron2.structures import BitMasks, Boxes, Instances
    from detectron2.utils.events import EventStorage

    scope: dict = {}
    exec(EXAMPLES[example], scope)
    if 'cfg' in scope:
        scope['cfg'].MODEL.DEVICE = 'cpu'
        model = build_model(scope['cfg'])
    else:
        model = instantiate(scope['model'])
    image = torch.randint(256, (3, 128, 160), dtype=torch.uint8)
    masks = torch.zeros(1, 128, 160, dtype=torch.bool)
    masks[:, 20:90, 30:120] = True
    truth = Instances((128, 160), gt_boxes=Boxes(torch.tensor([[30.0, 20.0, 120.0, 90.0]])))
    truth.gt_classes = torch.tensor([1])
    truth.gt_masks = BitMasks(masks)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    with EventStorage():
        loss = sum(model.train()([{'image': image, 'instances': truth}]).values())
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    with torch.no_grad():
        (found,) = model.eval()([{'image': image, 'height': 128, 'width': 160}])
    assert found['instances'].image_size == (128, 160)
