"""Fixtures, and the variants that every test of the contract runs over."""

import email.message
import io
import itertools
import logging
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.error import URLError
from urllib.response import addinfourl

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightvit_mm import backbones
from lightvit_mm.backbones import PyramidBackbone

REPOSITORY = Path(__file__).parents[1]
FAMILIES = [
    value
    for value in vars(backbones).values()
    if isinstance(value, type)
    and issubclass(value, PyramidBackbone)
    and value is not PyramidBackbone
]
VARIANTS = [
    pytest.param(family, arch, id=f'{family.__name__}-{arch}')
    for family in FAMILIES
    for arch in family.arch_settings
]
SMALLEST = [
    pytest.param(family, next(iter(family.arch_settings)), id=family.__name__)
    for family in FAMILIES
]


# Tests run tools in this process too, and Python puts a script's folder on the path.
sys.path.append(str(REPOSITORY / 'tools'))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _forget_visualizers() -> None:
    """mmengine gives the next run of this process that of the last, and its folder with it."""
    yield
    for visualizer in (Visualizer, *Visualizer.__subclasses__()):
        visualizer._instance_dict.clear()


def randomise_norms(model: torch.nn.Module) -> None:
    """Give BatchNorms statistics and affine parameters that hide no mistake in a folding."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            torch.nn.init.normal_(module.running_mean, std=0.5)
            torch.nn.init.uniform_(module.running_var, 0.3, 3.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.5)


def largest_deviation(outputs, expected) -> float:
    """Largest difference of two pyramids, in standard deviations of each level."""
    return max(
        ((a - b).abs().max() / b.std(correction=0).clamp(min=1e-12)).item()
        for a, b in itertools.zip_longest(outputs, expected)
    )


# Options that make a Mask R-CNN of four classes as small as it can be.
SMALL_MASK_RCNN = {
    'model.neck.out_channels': 16,
    'model.rpn_head.in_channels': 16,
    'model.rpn_head.feat_channels': 16,
    'model.roi_head.bbox_roi_extractor.out_channels': 16,
    'model.roi_head.mask_roi_extractor.out_channels': 16,
    'model.roi_head.bbox_head.in_channels': 16,
    'model.roi_head.bbox_head.fc_out_channels': 32,
    'model.roi_head.bbox_head.num_classes': 4,
    'model.roi_head.mask_head.in_channels': 16,
    'model.roi_head.mask_head.conv_out_channels': 16,
    'model.roi_head.mask_head.num_convs': 1,
    'model.roi_head.mask_head.num_classes': 4,
    'model.test_cfg.rpn.max_per_img': 100,
}


def random_detector(config: Config) -> torch.nn.Module:
    """A detector of random weights whose scores and boxes differ from place to place."""
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    config.model.backbone.init_cfg = None
    model = MODELS.build(config.model).eval()
    randomise_norms(model)
    spreads = {'cls': 2.0, 'reg': 0.3, 'conv_logits': 2.0}
    for name, layer in model.named_modules():
        spread = [value for end, value in spreads.items() if name.endswith(end)]
        if spread and hasattr(layer, 'weight'):
            torch.nn.init.zeros_(layer.bias)

            def rescale(layer, _, output, spread=spread[0]):
                scale = spread / output.std()
                layer.weight.mul_(scale)
                layer.hook.remove()
                return output * scale

            layer.hook = layer.register_forward_hook(rescale)
    with torch.no_grad():
        predict(model, torch.randn(1, 3, 64, 96))
    return model


def predict(detector: torch.nn.Module, x: torch.Tensor) -> InstanceData:
    """What mmdet predicts of one normalised image, in pixels of that."""
    from mmdet.structures import DetDataSample

    size = tuple(x.shape[2:])
    meta = {'img_shape': size, 'ori_shape': size, 'scale_factor': (1.0, 1.0)}
    return detector.predict(x, [DetDataSample(metainfo=meta)], rescale=False)[0].pred_instances


class LargestTensor(TorchDispatchMode):
    """Number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return out


def run_tool(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess:
    """Run one of the project's scripts as a user would."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True
    )


@pytest.fixture
def mm_log() -> list[str]:
    """The lines that mmengine's logger writes during the test."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small embedded data set."""
    from lightvit_mm.data.shapes import make_shapes

    root = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes(root, num_train=8, num_val=4)
    return root


@pytest.fixture(scope='session')
def small_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images with one object of each class of the embedded data set."""
    import small_data

    root = tmp_path_factory.mktemp('data')
    small_data.write_images(root, ['a.png', 'b.png'])
    small_data.write_coco(root, small_data.coco(dict.fromkeys(['a.png', 'b.png'], small_data.SIZE)))
    return root


@pytest.fixture
def quick_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runners that do not ask the compiler for its version."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


class Network:
    """A stand-in for the web behind urllib: what addresses answer, and which were asked."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.asked: list[str] = []

    def open(self, request):
        address = request.full_url
        self.asked.append(address)
        headers = email.message.Message()
        if address in self.redirects:
            headers['Location'] = self.redirects[address]
            response = addinfourl(io.BytesIO(), headers, address, 302)
        elif address in self.answers:
            headers['Content-Length'] = str(len(self.answers[address]))
            response = addinfourl(io.BytesIO(self.answers[address]), headers, address, 200)
        else:
            raise URLError('no route')
        response.msg = ''
        return response


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Network:
    """No address answers but those that the test names; downloads go into its own folder."""
    network = Network()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    for handler, method in (('HTTPSHandler', 'https_open'), ('HTTPHandler', 'http_open')):
        monkeypatch.setattr(
            getattr(urllib.request, handler), method, lambda _, request: network.open(request)
        )
    return network
