"""The comparisons pass on the CPU, and notice a device that is wrong."""

import math

import pytest
from gpu import operators
from gpu.correct import check_backbone, check_compiled
from gpu.record import Check
from torch import nn

from lightvit_mm.backbones import EdgeViT
from lightvit_mm.benchmark.subjects import Subject

EXACT = [
    f'small fp32{layout} {what}'
    for layout in ('', ' channels_last')
    for what in ('outputs', 'gradients')
]
DEPLOYED = [f'small fp32{layout} deploy form' for layout in ('', ' channels_last')]

LOW = [
    f'small {form} {what}'
    for form in ('bf16 channels_last', 'fp16 channels_last', 'TF32')
    for what in ('outputs', 'gradients', 'deploy form')
]
DEVICE = 'cpu:0'  # not 'cpu', which is what others are compared with


def checks_of(findings):
    return [each for each in findings if isinstance(each, Check)]


class WrongOnTheDevice(EdgeViT):
    """Wrong by 20 % after `to`, and by more in the gradients."""

    moved = False

    def to(self, *args, **kwargs):
        self.moved = self.moved or args[:1] == (DEVICE,)
        return super().to(*args, **kwargs)

    def forward(self, x):
        factor = 1.2 if self.moved and x.dtype.itemsize == 4 else 1.0
        return tuple(factor * level for level in super().forward(x))


@pytest.mark.parametrize('network', [EdgeViT, WrongOnTheDevice])
def test_a_wrong_device_fails(network):
    subject = Subject('edgevit_xxs', lambda: network(arch='xxs', out_indices=(0,)))
    checks = checks_of(check_backbone(subject, DEVICE, (32, 32)))
    assert all(check.value > 0 for check in checks)
    names = {check.name.replace('edgevit_xxs', 'small') for check in checks}
    assert names == {*EXACT, *DEPLOYED, *LOW}
    # In lower precision too, where the network in bf16 on the CPU is what it is compared with.
    assert {check.passed for check in checks} == {network is EdgeViT}


class Small(nn.Module):
    """A pyramid of one level, quick to compile."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return (self.norm(self.conv(x)),)


def test_a_compiled_network_is_compared_at_each_size():
    checks = checks_of(check_compiled(Subject('a', Small), 'cpu', (32, 64), 'eager', dynamic=True))
    sizes = ['32x64', '32x64', '96x32', '96x32']
    assert [check.name.split(', ')[-1].split()[0] for check in checks] == sizes
    assert all(check.value > 0 and check.passed for check in checks), checks


def test_roi_align_is_compared():
    pytest.importorskip('mmcv.ops')
    checks = checks_of(operators.check_roi_align('cpu'))
    assert [check.name for check in checks] == ['RoIAlign outputs', 'RoIAlign gradients']
    assert all(check.value > 0 and check.passed for check in checks)


def test_nan_fails():
    assert not Check('', math.nan, 1.0).passed
    assert Check('', 1.0, 1.0).passed
