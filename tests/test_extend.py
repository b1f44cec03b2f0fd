"""The family of docs/extend.md keeps the contract."""

import inspect
import sys
from functools import partial
from types import ModuleType

import pytest
import torch
from helpers.doc_pages import blocks
from helpers.repository import REPOSITORY
from mmengine.config import Config

from lightvit_mm.registry import MODELS

sys.path.insert(0, str(REPOSITORY / 'tests/backbones'))
import test_contract

FAMILY, LAYOUTS, CONFIG = blocks(REPOSITORY / 'docs/extend.md', 'python')
# Each takes a variant, as a family and an arch or as a function that builds it, and some of these.
OTHERS = {'frozen_stages': 1, 'norm_eval': True, 'tmp_path': None, 'mm_log': None}


def takes_a_variant(check) -> bool:
    needed = set(inspect.signature(check).parameters) - set(OTHERS)
    return needed in ({'family', 'arch'}, {'build'})


CHECKS = [
    check
    for name, check in vars(test_contract).items()
    if name.startswith('test_') and takes_a_variant(check)
]


@pytest.fixture(scope='module')
def my_net():
    # The layouts first: the family imports them.
    for name, code in (('checkpoints', LAYOUTS), ('backbones', FAMILY)):
        module = ModuleType(f'lightvit_mm.{name}.my_net')
        sys.modules[module.__name__] = module
        exec(compile(code, 'docs/extend.md', 'exec'), vars(module))
    yield module.MyNet
    MODELS._module_dict.pop('MyNet')
    for name in ('checkpoints', 'backbones'):
        del sys.modules[f'lightvit_mm.{name}.my_net']


@pytest.mark.parametrize('check', CHECKS, ids=lambda check: check.__name__)
def test_contract_of_the_example(my_net, check, tmp_path, mm_log):
    variant = {'family': my_net, 'arch': 'small', 'build': partial(my_net, arch='small')}
    known = {**OTHERS, **variant, 'tmp_path': tmp_path, 'mm_log': mm_log}
    check(**{name: known[name] for name in inspect.signature(check).parameters})


def test_all_of_the_contract_is_checked():
    assert len(CHECKS) >= 18
    assert test_contract.test_deploy_form_computes_the_same in CHECKS


def test_the_example_loads_its_release(my_net, tmp_path, mm_log):
    source = my_net(arch='base')
    released = {'head.weight': torch.zeros(10, 192)}
    for name, value in source.state_dict().items():
        name = name.replace('stem.', 'entry.').replace('.downsample.', '.down.')
        released[name.replace('stages.', 'body').replace('.blocks.', '.')] = value
    torch.save({'model': released}, tmp_path / 'released.pth')
    model = my_net(
        arch='base', init_cfg={'type': 'Pretrained', 'checkpoint': str(tmp_path / 'released.pth')}
    )
    model.init_weights()
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert any('from the official layout' in line for line in mm_log)


def test_the_config_of_the_example(my_net, tmp_path):
    from mmdet.registry import MODELS as DETECTORS
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    (tmp_path / 'configs').symlink_to(REPOSITORY / 'configs')
    (tmp_path / 'mine.py').write_text(CONFIG)
    config = Config.fromfile(tmp_path / 'mine.py')
    detector = DETECTORS.build(config.model)
    assert list(detector.backbone.out_channels) == config.model.neck.in_channels
