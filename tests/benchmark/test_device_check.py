"""The checks of a device pass on the CPU, and notice a device that is wrong."""

import math
import sys

import pytest
import torch
from helpers.repository import run_tool

from lightvit_mm.backbones import EdgeViT, ShuffleT2TViT
from lightvit_mm.benchmark import device_check, run
from lightvit_mm.benchmark.device_check import Check, check_backbone, check_device
from lightvit_mm.benchmark.subjects import Subject
from lightvit_mm.errors import UserError
from lightvit_mm.measure.limits import Ceilings

FORMS = ['training form', 'gradients', 'deploy form', 'channels_last', 'autocast bf16']


def names(checks):
    return [check.name for check in checks]


@pytest.mark.parametrize('family', [EdgeViT, ShuffleT2TViT])
def test_the_cpu_passes(family):
    arch = next(iter(family.arch_settings))
    subject = Subject('small', lambda: family(arch=arch, out_indices=(0, 1)))
    checks = list(check_backbone(subject, 'cpu', (64, 32)))
    assert names(checks) == [f'small {form}' for form in [*FORMS, 'autocast fp16']]
    assert all(check.passed for check in checks), checks
    # Nothing is compared with itself.
    assert all(check.value > 0 for check in checks)


class WrongOnTheDevice(EdgeViT):
    """Wrong by 2% after `to`, and by more in the gradients."""

    moved = False

    def to(self, *args, **kwargs):
        self.moved = self.moved or args == ('cpu',)
        return super().to(*args, **kwargs)

    def forward(self, x):
        factor = 1.02 if self.moved else 1.0
        return tuple(factor * level for level in super().forward(x))


def test_a_wrong_device_fails():
    subject = Subject('wrong', lambda: WrongOnTheDevice(arch='xxs', out_indices=(0,)))
    checks = list(check_backbone(subject, 'cpu', (32, 32)))
    failed = names(check for check in checks if not check.passed)
    assert failed[:4] == [f'wrong {form}' for form in FORMS[:4]]


def test_nan_fails():
    assert not Check('', math.nan, 1.0).passed
    assert Check('', 1.0, 1.0).passed


def test_no_detector_without_mmdet(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'mmdet', None)
    with pytest.raises(UserError, match=r'mmdet.*setup\.sh'):
        device_check.train_detector(str(tmp_path), 8, 1)


@pytest.mark.slow
def test_all_of_it_on_the_cpu(monkeypatch, tmp_path, capsys):
    subject = Subject('repvit_m0_6', device_check.variants()['repvit_m0_6'].build)
    monkeypatch.setattr(device_check, 'variants', lambda: {'repvit_m0_6': subject})
    monkeypatch.setattr(torch, 'compile', lambda model, **_: model)
    monkeypatch.setattr(run, 'measure_ceilings', lambda *_: Ceilings(100.0, '8x8x8', 10.0))
    checks = check_device('cpu', True, str(tmp_path))
    assert [check.name for check in checks if not check.passed] == []
    assert names(checks)[-1] == 'RetinaNet, last quarter of the losses over the first'
    assert len(checks) == 8
    said = capsys.readouterr().out
    assert 'ok     repvit_m0_6 compiled: ' in said
    assert 'RetinaNet: box AP 0.' in said
    for name in ('benchmark_inference.json', 'benchmark_training.json'):
        assert (tmp_path / name).is_file()


def test_a_device_that_torch_does_not_know(tmp_path):
    done = run_tool('tools/gpu_check.py', '--device', 'nonsense', '--work-dir', tmp_path)
    assert done.returncode == 2
    assert '--device nonsense: give cuda, cuda:1 or cpu' in done.stderr
