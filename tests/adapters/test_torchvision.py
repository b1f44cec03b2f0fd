"""The backbones in torchvision's own detectors."""

from collections import OrderedDict

import pytest
import torch
from helpers import timm_reference

from lightvit_mm.backbones.create import create_backbone

NAMES = ('edgevit_xxs', 'mobilevit_xxs', 'repvit_m0_6', 'efficientvit_m0')


@pytest.fixture(scope='module', autouse=True)
def _torchvision():
    timm_reference.import_timm()  # makes torchvision importable beside a CPU build of torch
    pytest.importorskip('torchvision')


@pytest.mark.parametrize('name', NAMES)
def test_levels_by_name(name):
    from lightvit_mm.adapters.torchvision import OrderedPyramid

    backbone = create_backbone(name, out_indices=(0, 2)).eval()
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        levels, expected = OrderedPyramid(backbone)(image), backbone(image)
    assert isinstance(levels, OrderedDict)
    assert list(levels) == ['0', '1']
    assert all(map(torch.equal, levels.values(), expected))


@pytest.mark.parametrize('name', NAMES)
def test_a_retinanet_of_torchvision_trains(name):
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    from lightvit_mm.adapters.torchvision import PyramidWithFPN

    backbone = create_backbone(name, out_indices=(-2, -1))
    pyramid = PyramidWithFPN(backbone, 16, LastLevelP6P7(16, 16))
    sizes = tuple((8 * stride,) for stride in (1, 2, 4, 8))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    model = RetinaNet(pyramid, 3, anchor_generator=anchors, min_size=64, max_size=128).train()
    images = [torch.rand(3, 64, 96), torch.rand(3, 80, 64)]
    box = {'boxes': torch.tensor([[4.0, 4.0, 40.0, 50.0]]), 'labels': torch.tensor([1])}
    losses = model(images, [box, box])
    sum(losses.values()).backward()
    assert set(losses) == {'classification', 'bbox_regression'}
    assert all(loss.isfinite() for loss in losses.values())
    without = [n for n, p in backbone.named_parameters() if p.grad is None]
    assert not without


def test_the_levels_of_faster_rcnn():
    """Its names are those that torchvision's own backbones with FPN give."""
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

    from lightvit_mm.adapters.torchvision import PyramidWithFPN

    theirs = resnet_fpn_backbone(backbone_name='resnet18', weights=None).eval()
    ours = PyramidWithFPN(create_backbone('repvit_m0_6'), 256, LastLevelMaxPool()).eval()
    image = torch.randn(1, 3, 64, 128)
    with torch.no_grad():
        expected, levels = theirs(image), ours(image)
    assert ours.out_channels == theirs.out_channels
    assert [(k, v.shape) for k, v in levels.items()] == [(k, v.shape) for k, v in expected.items()]
