"""The LRASPP head that pools over whole maps."""

import pytest
import torch
from mmengine.registry import init_default_scope
from torch.nn import functional as F

CHANNELS = (8, 16, 24)


@pytest.fixture(scope='module')
def head():
    from lightvit_mm.heads.lraspp_head import GlobalLRASPPHead

    init_default_scope('mmseg')
    torch.manual_seed(0)
    return GlobalLRASPPHead(
        in_channels=CHANNELS,
        in_index=(0, 1, 2),
        input_transform='multiple_select',
        channels=12,
        num_classes=5,
        norm_cfg={'type': 'BN'},
        align_corners=False,
    ).eval()


def levels(height, width):
    return [
        torch.randn(2, channels, height // stride, width // stride)
        for channels, stride in zip(CHANNELS, (1, 4, 8), strict=True)
    ]


@pytest.mark.parametrize('size', [(8, 16), (24, 8), (400, 400)])  # the last gives 50 x 50 places
def test_output(head, size):
    with torch.no_grad():
        assert head(levels(*size)).shape == (2, 5, *size)


def test_the_weights_of_channels_come_from_the_whole_map(head):
    """A level whose weights are taken from its mean alone gives the same."""
    maps = levels(16, 32)
    with torch.no_grad():
        weights = head.image_pool[1](maps[2].mean((2, 3), keepdim=True))
        x = head.conv_up_input(head.aspp_conv(maps[2]) * weights)
        for index in (1, 0):
            x = F.interpolate(x, maps[index].shape[2:], mode='bilinear', align_corners=False)
            x = head.conv_ups[index](torch.cat([x, head.convs[index](maps[index])], 1))
        torch.testing.assert_close(head(maps), head.cls_seg(x))
