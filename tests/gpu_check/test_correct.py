"""The comparisons pass on the CPU, and notice a device that is wrong."""

import math

import pytest

from lightvit_mm.backbones import EdgeViT, ShuffleT2TViT
from lightvit_mm.benchmark.subjects import Subject
from lightvit_mm.gpu_check import operators
from lightvit_mm.gpu_check.correct import check_backbone, check_compiled
from lightvit_mm.gpu_check.record import Check

EXACT = [
    f'small fp32{layout} {what}'
    for layout in ('', ' channels_last')
    for what in ('outputs', 'gradients')
]


def checks_of(findings):
    return [each for each in findings if isinstance(each, Check)]


@pytest.mark.parametrize('family', [EdgeViT, ShuffleT2TViT])
def test_the_cpu_passes(family):
    arch = next(iter(family.arch_settings))
    name = 'edgevit_xxs' if family is EdgeViT else 'shuffle_t2t_vit_7'
    subject = Subject(name, lambda: family(arch=arch, out_indices=(0, 1)))
    checks = checks_of(check_backbone(subject, 'cpu', (64, 32)))
    names = [each.name.replace(name, 'small') for each in checks]
    assert names[:4] == EXACT
    assert 'small deploy form, fp32' in names
    assert all(check.passed for check in checks), checks
    # Nothing is compared with itself.
    assert all(check.value > 0 for check in checks)


class WrongOnTheDevice(EdgeViT):
    """Wrong by 2% after `to`, and by more in the gradients."""

    moved = False

    def to(self, *args, **kwargs):
        self.moved = self.moved or args[:1] == ('cpu',)
        return super().to(*args, **kwargs)

    def forward(self, x):
        factor = 1.02 if self.moved and x.dtype.itemsize == 4 else 1.0
        return tuple(factor * level for level in super().forward(x))


def test_a_wrong_device_fails():
    subject = Subject('edgevit_xxs', lambda: WrongOnTheDevice(arch='xxs', out_indices=(0,)))
    checks = checks_of(check_backbone(subject, 'cpu', (32, 32)))
    failed = [check.name.replace('edgevit_xxs', 'small') for check in checks if not check.passed]
    assert failed[:4] == EXACT
    assert failed[4:] == ['small deploy form, fp32', 'small deploy form, fp32 channels_last']


def test_compiled_backbones_are_compared_at_each_size():
    subject = Subject('edgevit_xxs', lambda: EdgeViT(arch='xxs', out_indices=(0,)))
    checks = checks_of(check_compiled(subject, 'cpu', (32, 64), 'eager', dynamic=True))
    sizes = ['32x64', '32x64', '96x32', '96x32']
    assert [check.name.split(', ')[-1].split()[0] for check in checks] == sizes
    assert all(check.passed for check in checks)
    assert all(check.value > 0 for check in checks)


def test_roi_align_is_compared():
    pytest.importorskip('mmcv.ops')
    checks = checks_of(operators.check_roi_align('cpu'))
    assert [check.name for check in checks] == ['RoIAlign outputs', 'RoIAlign gradients']
    assert all(check.value > 0 and check.passed for check in checks)


def test_nan_fails():
    assert not Check('', math.nan, 1.0).passed
    assert Check('', 1.0, 1.0).passed
