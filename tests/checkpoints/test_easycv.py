"""EdgeViT's weights by EasyCV: its layout, and what its files may hold beside the weights.

The released files were never opened here. Those below are made as EasyCV's code and mmcv write
them, with the weights of the golden file.
"""

import copy
import pathlib
import sys
import types

import pytest
import torch
from helpers import golden_files
from helpers.variants import largest_deviation
from mmengine.runner import load_checkpoint

from lightvit_mm.backbones import EdgeViT
from lightvit_mm.checkpoints import CheckpointError, WeightsError

GOLDEN = golden_files.read('easycv_edgevit_xxs')


@pytest.fixture(scope='module')
def released() -> dict[str, torch.Tensor]:
    return golden_files.weights(GOLDEN)


def levels(model: EdgeViT) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return model.eval()(golden_files.image([1, 3, 64, 64]))


@pytest.fixture(scope='module')
def expected(released) -> tuple[torch.Tensor, ...]:
    model = EdgeViT(arch='xxs', out_norm=True)
    model.load_state_dict(released)
    return levels(model)


@pytest.mark.parametrize('deploy', [False, True])
def test_golden_outputs(released, deploy, mm_log):
    plain, normed = (EdgeViT(arch='xxs', deploy=deploy, out_norm=norm) for norm in (False, True))
    for model in (plain, normed):
        model.load_state_dict(released)
        model.eval()
    said = '\n'.join(mm_log)
    assert '249/249 tensors from the EasyCV layout of the state dict; not part of' in said
    assert 'not part of the backbone: norm (5), head (2)' in said
    first, second, logits = GOLDEN['runs']
    image = golden_files.image(first['input'])
    with torch.no_grad():
        outputs, last = plain(image), normed(image)[-1]
    for output, wanted in zip(outputs, first['outputs'], strict=True):
        assert golden_files.deviation(output, wanted) < 1e-4
    assert golden_files.deviation(last, second['outputs'][0]) < 1e-4
    # The classifier of the release, which no backbone has.
    classified = torch.nn.functional.linear(
        last.mean((2, 3)), released['head.fc_cls.weight'], released['head.fc_cls.bias']
    )
    assert golden_files.deviation(classified, logits['outputs'][0]) < 1e-4


def best_checkpoint(weights):
    """What EasyCV's BestCkptSaverHook saves: its average is the state dict."""
    return {
        'meta': {'epoch': 297, 'iter': 186250, 'runner_epoch': 296, 'neck_top1': 75.18},
        'state_dict': weights,
        'optimizer': {
            'state': {0: {'step': 3, 'exp_avg': torch.ones(2), 'exp_avg_sq': torch.ones(2)}},
            'param_groups': [{'lr': 1e-5, 'betas': (0.9, 0.999), 'params': [0]}],
        },
    }


def mmcv_checkpoint(weights):
    """What mmcv 1.x saves: the config as text, messages of hooks, a time."""
    meta = {'mmcv_version': '1.4.4', 'time': 'Mon Nov 28', 'config': 'model = dict()', 'seed': None}
    return {'meta': {**meta, 'hook_msgs': {'best_score': 75.18}}, 'state_dict': weights}


def with_averages(weights):
    """What mmcv's own EMAHook adds: a buffer for each parameter."""
    averages = {f'ema_{key.replace(".", "_")}': value for key, value in weights.items()}
    return {'state_dict': {**weights, **averages}}


HARMLESS = {
    'bare': lambda weights: weights,
    'best checkpoint': best_checkpoint,
    'mmcv': mmcv_checkpoint,
    'module.': lambda weights: {'state_dict': {f'module.{k}': v for k, v in weights.items()}},
    'averages beside': with_averages,
    'scores as tensors': lambda weights: {
        'meta': {'neck_top1': torch.tensor(75.18)}, 'state_dict': weights,
    },
    'half precision': lambda weights: {
        'state_dict': {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    },
    'exported backbone': lambda weights: {
        key.removeprefix('backbone.'): value
        for key, value in weights.items() if key.startswith('backbone.')
    },
}  # fmt: skip


@pytest.mark.parametrize('old_format', [False, True], ids=['zip', 'old format'])
@pytest.mark.parametrize('wrap', HARMLESS.values(), ids=HARMLESS)
def test_what_a_file_may_hold(tmp_path, released, expected, wrap, old_format, mm_log):
    file = tmp_path / 'ClsEvaluator_neck_top1_best.pth'
    torch.save(wrap(released), file, _use_new_zipfile_serialization=not old_format)
    model = EdgeViT('xxs', out_norm=True, init_cfg={'type': 'Pretrained', 'checkpoint': str(file)})
    model.init_weights()
    bound = 1e-2 if wrap is HARMLESS['half precision'] else 0
    assert largest_deviation(levels(model), expected) <= bound
    (report,) = [line for line in mm_log if '249/249 tensors from the' in line]
    assert len(report) < 500 + len(str(file)), 'one short line, whatever else there is'
    named = 'official' if wrap is HARMLESS['exported backbone'] else 'EasyCV'
    if wrap is not HARMLESS['averages beside']:
        assert f'{named} layout of {file}' in report


def test_a_whole_detector_takes_it_from_load_from(tmp_path, released, expected):
    file = tmp_path / 'best.pth'
    torch.save(best_checkpoint(released), file)
    detector = torch.nn.Module()
    detector.backbone = EdgeViT(arch='xxs', out_norm=True)
    load_checkpoint(detector, str(file))
    assert largest_deviation(levels(detector.backbone), expected) == 0


REFUSED = (
    'mmcv.utils.config.ConfigDict',
    'easycv.models.classification.Classification',
    'pathlib.PurePosixPath',
)


@pytest.mark.parametrize('place', ['meta', 'state_dict', 'model'])
@pytest.mark.parametrize('name', REFUSED)
def test_what_is_refused_is_named(tmp_path, released, name, place, monkeypatch):
    file = tmp_path / 'best.pth'
    content = best_checkpoint(dict(released))
    if name.startswith('pathlib'):
        stranger: object = pathlib.PurePosixPath('work_dirs/edgexxs')
    else:  # of a package that is not here
        *packages, cls = name.split('.')
        for depth in range(1, len(packages) + 1):
            module = '.'.join(packages[:depth])
            if module not in sys.modules:
                monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        setattr(sys.modules[module], cls, type(cls, (dict,), {'__module__': module}))
        stranger = getattr(sys.modules[module], cls)(type='EdgeVit')
    content.setdefault(place, {})['config'] = stranger
    torch.save(content, file)
    monkeypatch.undo()
    model = EdgeViT('xxs', out_norm=True, init_cfg={'type': 'Pretrained', 'checkpoint': str(file)})
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=rf'refused: loading it would call {name}') as error:
        model.init_weights()
    for part in (str(file), 'None of it was run', 'save its tensors again'):
        assert part in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_whole_model_is_refused(tmp_path):
    torch.save(EdgeViT(arch='xxs'), tmp_path / 'model.pth')
    with pytest.raises(CheckpointError, match=r'refused.*EdgeViT'):
        load_checkpoint(EdgeViT(arch='xxs'), str(tmp_path / 'model.pth'))


def test_another_variant_is_an_error_that_names_the_right_one(released):
    with pytest.raises(WeightsError, match=r"read as the EasyCV layout.*It fits arch='xxs'"):
        EdgeViT(arch='xs', out_norm=True).load_state_dict(released)


def test_weights_that_cannot_be_fetched_say_what_to_do(network):
    address = 'https://site.example/edgexxs/best.pth'
    model = EdgeViT('xxs', init_cfg={'type': 'Pretrained', 'checkpoint': address})
    with pytest.raises(
        CheckpointError, match=r'best\.pth could not be fetched: no route.*init_cfg'
    ):
        model.init_weights()
