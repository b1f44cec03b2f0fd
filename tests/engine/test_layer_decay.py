"""Layer-wise learning-rate decay: every parameter's learning rate and weight decay by value."""

import re

import pytest
import torch
from helpers.repository import run_tool
from helpers.variants import SMALLEST
from mmengine.model.wrappers import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from torch import nn

from lightvit_mm.backbones import EdgeViT, EfficientViT, RepViT
from lightvit_mm.engine.param_groups import param_group_table, rising_groups
from lightvit_mm.errors import UserError
from lightvit_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

LR, DECAY, RATE = 1e-2, 0.05, 0.8


class Detector(nn.Module):
    """A backbone followed by a head."""

    def __init__(self, backbone: nn.Module, name: str = 'backbone') -> None:
        super().__init__()
        self.add_module(name, backbone)
        self.head = nn.Conv2d(8, 2, 1)
        self.norm = nn.BatchNorm2d(2)


def build(model, optimizer='AdamW', **paramwise):
    return build_optim_wrapper(
        model,
        {
            'type': 'OptimWrapper',
            'optimizer': {'type': optimizer, 'lr': LR, 'weight_decay': DECAY},
            'constructor': 'LightViTLayerDecay',
            'paramwise_cfg': {'decay_rate': RATE, **paramwise},
        },
    )


def settings(model, **paramwise):
    """Learning rate and weight decay of every parameter, by name."""
    groups = build(model, **paramwise).optimizer.param_groups
    of = {p: (group['lr'], group['weight_decay']) for group in groups for p in group['params']}
    assert len(of) == sum(len(group['params']) for group in groups)
    return {name: of[p] for name, p in model.named_parameters() if p in of}


def tiny() -> EdgeViT:
    return EdgeViT(arch='xxs', out_norm=True)


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.', 'student.net.'])
@pytest.mark.parametrize(('family', 'arch'), SMALLEST)
def test_every_learning_rate_is_the_formula(family, arch, prefix):
    backbone = family(arch=arch)
    model = backbone
    for name in reversed(prefix.split('.')[:-1]):
        # mmengine takes anything with an attribute `module` for a wrapper.
        model = Detector(model, name)
    found = settings(model)
    unwrapped = getattr(model, 'module', model)
    assert set(found) == {
        name for name, p in model.named_parameters() if model is unwrapped or 'module.' in name
    }
    num_layers = sum(len(stage.blocks) for stage in backbone.stages) + 2
    seen = set()
    for name, (lr, decay) in found.items():
        inside = name.removeprefix(prefix)
        parts = inside.split('.')
        if not name.startswith(prefix) or parts[0] not in ('stem', 'stages'):
            layer = num_layers - 1
        elif parts[0] == 'stem':
            layer = 0
        else:
            before = sum(len(stage.blocks) for stage in backbone.stages[: int(parts[1])])
            layer = before + 1 + (int(parts[3]) if parts[2] == 'blocks' else 0)
        seen.add(layer)
        assert lr == pytest.approx(LR * RATE ** (num_layers - 1 - layer), rel=1e-12), name
        assert decay == DECAY
    assert seen >= set(range(num_layers - 1))


def test_by_hand():
    found = settings(Detector(tiny()))  # depths 1, 1, 3, 2: 9 layers
    assert found['backbone.stem.proj.weight'][0] == pytest.approx(LR * 0.8**8)
    name = 'backbone.stages.2.blocks.1.self_attn.attn.qkv.weight'
    assert found[name][0] == pytest.approx(LR * 0.8**4)
    assert found['backbone.out_norm.weight'][0] == LR
    assert found['head.weight'][0] == LR


@pytest.mark.parametrize('wrapped', [False, True])
def test_distributed_wrapper(wrapped):
    model = Detector(tiny())
    alone = settings(model)
    if wrapped:
        torch.distributed.init_process_group(
            'gloo', store=torch.distributed.HashStore(), rank=0, world_size=1
        )
    try:
        outer = MMDistributedDataParallel(model) if wrapped else nn.DataParallel(model)
        assert settings(outer) == {f'module.{name}': value for name, value in alone.items()}
    finally:
        if wrapped:
            torch.distributed.destroy_process_group()


def test_two_backbones_have_separate_depths():
    model = nn.ModuleDict({'rgb': tiny(), 'depth': EfficientViT(arch='m0')})
    found = settings(model)
    assert found['rgb.stem.proj.weight'][0] == pytest.approx(LR * RATE**8)
    stem = next(name for name in found if name.startswith('depth.stem'))
    assert found[stem][0] == pytest.approx(LR * RATE**7)


def test_norm_and_bias_rules_stay():
    found = settings(Detector(tiny()), norm_decay_mult=0.0, bias_decay_mult=0.5, bias_lr_mult=2.0)
    scale = RATE**8
    assert found['backbone.stem.norm.weight'] == pytest.approx((LR * scale, 0.0))
    assert found['backbone.stem.norm.bias'] == pytest.approx((LR * scale, 0.0))
    assert found['backbone.stem.proj.weight'] == pytest.approx((LR * scale, DECAY))
    assert found['backbone.stem.proj.bias'] == pytest.approx((2 * LR * scale, DECAY / 2))
    assert found['head.bias'] == pytest.approx((2 * LR, DECAY / 2))
    assert found['norm.weight'] == pytest.approx((LR, 0.0))


def test_custom_keys_stay():
    keys = {
        'backbone': {'lr_mult': 0.1},
        'backbone.stem.proj': {'lr_mult': 3.0, 'decay_mult': 0.0},
        'head': {'lr_mult': 10.0, 'decay_mult': 0.5},
    }
    found = settings(Detector(tiny()), custom_keys=keys, norm_decay_mult=0.0)
    assert found['backbone.stem.proj.bias'] == pytest.approx((3 * LR * RATE**8, 0.0))
    # In mmengine a custom key overrides the other rules.
    assert found['backbone.stem.norm.weight'] == pytest.approx((0.1 * LR * RATE**8, DECAY))
    assert found['backbone.out_norm.weight'] == pytest.approx((0.1 * LR, DECAY))
    assert found['head.weight'] == pytest.approx((10 * LR, DECAY / 2))
    assert found['norm.weight'] == pytest.approx((LR, 0.0))


def test_frozen_parameters_are_left_out():
    model = Detector(EdgeViT(arch='xxs', frozen_stages=1))
    found = settings(model)
    assert not [name for name in found if name.startswith(('backbone.stem', 'backbone.stages.0'))]
    layer = 'backbone.stages.1.downsample.proj.weight'
    assert found[layer][0] == pytest.approx(LR * RATE**6)


def test_shared_backbone():
    model = Detector(tiny())
    model.again = nn.Sequential(model.backbone)
    alone = settings(Detector(tiny()))
    assert settings(model, bypass_duplicate=True) == alone
    with pytest.raises(ValueError, match='more than one parameter group'):
        settings(model)


def test_parameters_of_the_same_settings_are_one_group():
    model = Detector(tiny())
    groups = build(model, norm_decay_mult=0.0).optimizer.param_groups
    kinds = [(group['lr'], group['weight_decay']) for group in groups]
    assert len(kinds) == len(set(kinds)) == 18  # 9 layers, norms apart
    assert len(groups) < len(list(model.parameters())) / 5


def test_a_step_moves_by_the_scale():
    model = Detector(RepViT(arch='m0_6'))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapper = build(model, optimizer='SGD', custom_keys={'': {'decay_mult': 0.0}})
    wrapper.update_params(sum(p.sum() for p in model.parameters()))
    for name, p in model.named_parameters():
        layer, num_layers = num_layers_of(model, name)
        step = torch.full_like(p, LR * RATE ** (num_layers - 1 - layer))
        torch.testing.assert_close(before[name] - p.detach(), step, rtol=1e-3, atol=1e-6)


def num_layers_of(model, name):
    if not name.startswith('backbone.'):
        return 0, 1
    return model.backbone.get_layer_depth(name, 'backbone.')


def test_decay_rate_of_one_changes_nothing():
    assert {lr for lr, _ in settings(Detector(tiny()), decay_rate=1).values()} == {LR}


@pytest.mark.parametrize('rate', [0, -0.5, 1.01, 'a', None, True, float('nan')])
def test_bad_decay_rate(rate):
    with pytest.raises(
        UserError, match=re.escape('(0, 1], for instance paramwise_cfg=dict(decay_')
    ):
        build(tiny(), decay_rate=rate)


@pytest.mark.parametrize('paramwise', [None, {}, {'norm_decay_mult': 0.0}])
def test_missing_decay_rate(paramwise):
    config = {
        'optimizer': {'type': 'SGD', 'lr': LR, 'weight_decay': 0.0},
        'constructor': 'LightViTLayerDecay',
        'paramwise_cfg': paramwise,
    }
    with pytest.raises(UserError, match='the config has no decay_rate'):
        build_optim_wrapper(tiny(), config)


def test_missing_learning_rate():
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.get('LightViTLayerDecay')
    with pytest.raises(UserError, match=r'optimizer\.lr is None'):
        constructor({'optimizer': {'type': 'AdamW'}}, {'decay_rate': 0.8})


def test_model_without_a_backbone():
    with pytest.raises(UserError, match=r'Sequential has no backbone of lightvit_mm'):
        build(nn.Sequential(nn.Conv2d(3, 8, 1)))


def test_log_says_what_is_scaled(mm_log):
    build(Detector(tiny()))
    assert any(
        'EdgeViT xxs (backbone): learning rate of its 9 layers scaled from 0.168 to 1' in line
        for line in mm_log
    )


def test_table():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 1, 1))
    model[2].requires_grad_(False)
    groups = [
        {'params': [model[1].weight], 'lr': 0.1, 'weight_decay': 0.5},
        {'params': [model[0].weight], 'lr': 0.01, 'weight_decay': 0.5},
        {'params': [model[0].bias, model[1].bias], 'lr': 0.1, 'weight_decay': 0.5},
    ]
    table = param_group_table(torch.optim.SGD(groups), model)
    columns = [list(column.cells) for column in table.columns]
    assert list(zip(*columns, strict=True)) == [
        ('0.01', '0.5', '1', '12', '0.weight'),
        ('0.1', '0.5', '3', '24', '1.weight\n0.bias\n1.bias'),
        ('frozen', '', '2', '5', '2.weight\n2.bias'),
    ]


def test_schedule_that_raises_a_learning_rate():
    optimizer = build(tiny()).optimizer  # the smallest of 9 is 0.00168
    cosine = {'type': 'CosineAnnealingLR', 'eta_min': 0.0022}
    warning = rising_groups(optimizer, [{'type': 'LinearLR'}, cosine])
    assert 'of 2 of 9 groups (the smallest is 0.001678) to eta_min=0.0022' in warning
    for harmless in ({'eta_min': 0.001}, {'eta_min': None, 'eta_min_ratio': 0.5}):
        assert rising_groups(optimizer, [harmless]) is None
    assert rising_groups(optimizer, []) is None


def test_convolutions_that_levels_share_are_counted_once():
    model = Detector(tiny())
    model.other_level = nn.Sequential(model.head, nn.BatchNorm2d(2))  # as in RTMDet's head
    lrs = settings(model, bypass_duplicate=True)
    assert lrs['head.weight'] == lrs['other_level.1.weight'] == (LR, DECAY)
    assert len(lrs) == len(list(model.parameters()))


CONFIG = 'configs/retinanet_edgevit_xxs_shapes.py'


def test_tool_shows_the_groups(tmp_path):
    work_dir = tmp_path / 'work'
    done = run_tool(
        'tools/train.py', CONFIG, '--show-param-groups', '--work-dir', work_dir,
        '--cfg-options', 'optim_wrapper.constructor=LightViTLayerDecay',
        'optim_wrapper.paramwise_cfg.decay_rate=0.5', 'optim_wrapper.optimizer.lr=0.512',
        'optim_wrapper.optimizer.weight_decay=0.0625',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = re.findall(r'│ ([\d.]+) +│ ([\d.]+) +│ \d+ +│ [\d,]+ +│ (\S+)', done.stdout)
    # The stem is 8 layers below the neck: 0.512 / 2 ** 8.
    assert rows[0] == ('0.002', '0.0625', 'backbone.stem.proj.weight')
    assert [float(lr) for lr, _, _ in rows] == [0.002 * 2**layer for layer in range(9)]
    assert 'warning' not in done.stdout
    assert 'Epoch(train)' not in done.stdout + done.stderr
    assert not work_dir.exists()


def test_tool_says_what_is_wrong():
    done = run_tool(
        'tools/train.py', CONFIG, '--show-param-groups',
        '--cfg-options', 'optim_wrapper.constructor=LightViTLayerDecay',
    )  # fmt: skip
    assert done.returncode == 2
    assert 'needs a decay_rate in (0, 1]' in done.stderr
    assert 'Traceback' not in done.stderr
