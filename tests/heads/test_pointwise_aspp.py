"""The ASPP head of MobileViT's DeepLabv3."""

import pytest
import torch
from mmengine.registry import init_default_scope

from lightvit_mm.measure.complexity import count_parameters


@pytest.fixture
def head():
    from lightvit_mm.heads.pointwise_aspp import PointwiseASPPHead

    init_default_scope('mmseg')
    return PointwiseASPPHead(
        dilations=(1, 6, 12, 18),
        in_channels=160,
        channels=256,
        num_classes=21,
        norm_cfg={'type': 'BN'},
    ).eval()


def test_the_branches_are_joined_by_a_pointwise_convolution(head):
    assert head.bottleneck.conv.weight.shape == (256, 5 * 256, 1, 1)
    # Branches of 1x1, three of 3x3 and pooling, the joint, each with a norm; then the classes.
    branches = 160 * 256 * (1 + 3 * 9 + 1)
    assert count_parameters(head) == branches + 5 * 256 * 256 + 6 * 2 * 256 + 256 * 21 + 21


def test_output(head):
    with torch.no_grad():
        assert head([torch.randn(2, 160, 8, 6)]).shape == (2, 21, 8, 6)
