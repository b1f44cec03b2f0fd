"""What a training takes over from a checkpoint, and the checkpoints that it refuses."""

import math
from pathlib import Path

import pytest
import torch
from helpers.toy_run import run_toy, toy_config
from mmengine.hooks import EMAHook
from safetensors.torch import save_file

from lightvit_mm.engine.running import train
from lightvit_mm.errors import UserError

pytestmark = pytest.mark.usefixtures('quick_runner')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A training of two epochs, its best checkpoint included."""
    config = toy_config(tmp_path_factory.mktemp('trained'), epochs=2)
    config.default_hooks.checkpoint.update(save_best='mean', rule='greater')
    run_toy(config)
    return Path(config.work_dir)


@pytest.fixture(scope='module')
def saved(trained):
    return torch.load(trained / 'epoch_1.pth', weights_only=False)


def by_iteration(work_dir, **changes):
    config = toy_config(work_dir, **changes)
    config.train_cfg = {'by_epoch': False, 'max_iters': 6, 'val_interval': 3}
    config.default_hooks.checkpoint.update(by_epoch=False, interval=3)
    config.param_scheduler.update(by_epoch=False)
    # With the other sampler, mmengine sleeps for two seconds at the end of the data.
    config.train_dataloader.sampler.type = 'InfiniteSampler'
    return config


def changed(saved, part, **changes):
    return {**saved, part: {**saved[part], **changes}}


def lacking(saved, *names):
    return {name: value for name, value in saved.items() if name not in names}


def with_group(saved, **changes):
    (group,) = saved['optimizer']['param_groups']
    return changed(saved, 'optimizer', param_groups=[{**group, **changes}])


def with_weights(saved, part, value):
    name = next(name for name in saved[part] if name.endswith('0.weight'))
    return changed(saved, part, **{name: value(saved[part][name])})


BROKEN = {
    'no meta': (lambda c: lacking(c, 'meta'), 'has no meta'),
    'meta list': (lambda c: {**c, 'meta': [1]}, "'meta' is a list; expected a dict"),
    'no epoch': (lambda c: {**c, 'meta': {'iter': 3}}, r"meta\['epoch'\] is None"),
    'epoch text': (lambda c: changed(c, 'meta', epoch='one'), r"meta\['epoch'\] is 'one'; expec"),
    'epoch negative': (lambda c: changed(c, 'meta', epoch=-1), r"meta\['epoch'\] is -1; expected"),
    'epoch NaN': (lambda c: changed(c, 'meta', epoch=math.nan), r"meta\['epoch'\] is nan; expect"),
    'iter text': (lambda c: changed(c, 'meta', iter='3'), r"meta\['iter'\] is '3'; expected"),
    'seed text': (lambda c: changed(c, 'meta', seed='x'), r"meta\['seed'\] is 'x'; expected"),
    'no hub': (lambda c: lacking(c, 'message_hub'), 'has no message_hub'),
    'hub list': (lambda c: {**c, 'message_hub': []}, "'message_hub' is a list"),
    'hub empty': (lambda c: {**c, 'message_hub': {}}, r"'message_hub\.log_scalars' is a NoneType"),
    'no optimizer': (lambda c: lacking(c, 'optimizer'), 'has no optimizer.* holds weights without'),
    'no schedule': (lambda c: lacking(c, 'param_schedulers'), 'has no param_schedulers'),
    'optimizer list': (lambda c: {**c, 'optimizer': []}, "'optimizer' is a list"),
    'no groups': (lambda c: changed(c, 'optimizer', param_groups=[]), r'have \[\] parameters, tho'),
    'groups text': (lambda c: changed(c, 'optimizer', param_groups='x'), 'no list of groups'),
    'fewer parameters': (lambda c: with_group(c, params=[0, 1]), r'have \[2\] parameters, those'),
    'other state': (
        lambda c: changed(c, 'optimizer', state={0: {'exp_avg': torch.zeros(3, 3)}}),
        'parameters of other shapes',
    ),
    'learning rate': (lambda c: with_group(c, initial_lr='x'), "initial_lr of its .* is 'x'"),
    'no betas': (
        lambda c: changed(c, 'optimizer', param_groups=[
            lacking(c['optimizer']['param_groups'][0], 'betas')]),
        'its optimizer has no betas, which AdamW needs',
    ),
    'schedules': (lambda c: {**c, 'param_schedulers': []}, 'state of 0 schedulers, .* has 1'),
    'schedule text': (lambda c: {**c, 'param_schedulers': ['x']}, "'param_schedulers' is a str"),
    'average': (lambda c: {**c, 'ema_state_dict': [1]}, "'ema_state_dict' is a list"),
    'NaN in average': (
        lambda c: with_weights(c, 'ema_state_dict', lambda v: v * math.nan),
        r'ema_state_dict in .* is damaged: 1 tensors .*layers\.0\.weight: without finite values',
    ),
    'other average': (
        lambda c: changed(c, 'ema_state_dict', **{'module.x': torch.ones(1)}),
        "cannot be resumed: KeyError: 'x'",
    ),
    'NaN': (
        lambda c: with_weights(c, 'state_dict', lambda v: v * math.nan),
        r'layers\.0\.weight: without finite values',
    ),
    'no tensor': (
        lambda c: with_weights(c, 'state_dict', lambda v: 'x'),
        r'layers\.0\.weight: str in the file, \(16, 8\) here',
    ),
    'iteration-based': (
        lambda c: changed({**c, 'message_hub': {**c['message_hub'], 'runtime_info': {
            'max_epochs': 1, 'max_iters': 6}}}, 'meta', epoch=0),
        'checkpoint of an iteration-based training, and train_cfg of this config counts epochs',
    ),
}  # fmt: skip


@pytest.mark.parametrize(('break_it', 'said'), BROKEN.values(), ids=BROKEN)
def test_broken_checkpoints(saved, tmp_path, break_it, said):
    file = tmp_path / 'broken.pth'
    torch.save(break_it(saved), file)
    with pytest.raises(UserError, match=said) as raised:
        train(toy_config(tmp_path / 'work', epochs=2), resume=str(file))
    assert str(file) in str(raised.value)


def test_resume_in_the_config_is_checked_too(saved, tmp_path):
    torch.save(changed(saved, 'meta', epoch=-1), tmp_path / 'broken.pth')
    config = toy_config(
        tmp_path / 'work', epochs=2, resume=True, load_from=str(tmp_path / 'broken.pth')
    )
    with pytest.raises(UserError, match=r"meta\['epoch'\] is -1"):
        train(config)


ADAMW = {'type': 'AdamW', 'lr': 0.01}
OTHER_CONFIGS = {
    'optimizer': (
        {'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9}}},
        'its optimizer has no dampening, momentum, which SGD needs',
    ),
    'groups': (
        {'optim_wrapper': {'optimizer': ADAMW, 'paramwise_cfg': {'bypass_duplicate': True}}},
        r'groups of its optimizer have \[8\] parameters, those of this config \[1, 1, ',
    ),
    'kind of schedule': (
        {'param_scheduler': {'type': 'CosineAnnealingLR', 'T_max': 2}},
        'another kind than CosineAnnealingLR .only one of them has T_max, ',
    ),
    'no schedule': ({'param_scheduler': None}, 'state of 1 schedulers, .* has 0'),
    'model': (
        {'model': {'type': 'ToyModel', 'width': 8}}, r'layers\.0\.weight: \(16, 8\) in the file',
    ),
}  # fmt: skip


@pytest.mark.parametrize(('changes', 'said'), OTHER_CONFIGS.values(), ids=OTHER_CONFIGS)
def test_other_configs(trained, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        train(toy_config(tmp_path, epochs=2, **changes), resume=str(trained / 'epoch_1.pth'))


def test_iterations_do_not_continue_epochs(trained, tmp_path):
    with pytest.raises(UserError, match=r'checkpoint of an epoch-based .* counts iterations'):
        train(by_iteration(tmp_path), resume=str(trained / 'epoch_1.pth'))


def test_epochs_do_not_continue_iterations(tmp_path):
    run_toy(by_iteration(tmp_path / 'iter'))
    file = str(tmp_path / 'iter/iter_3.pth')
    with pytest.raises(UserError, match=r'checkpoint of an iteration-based .* counts epochs'):
        train(toy_config(tmp_path / 'epoch', epochs=2), resume=file)
    assert train(by_iteration(tmp_path / 'again'), resume=file).iter == 6


def test_the_best_checkpoint_cannot_be_resumed(trained, tmp_path):
    (best,) = trained.glob('best_*.pth')
    said = r'has no optimizer, param_schedulers.*load_from=\S+best_'
    with pytest.raises(UserError, match=said):
        train(toy_config(tmp_path, epochs=2), resume=str(best))


def test_other_names(tmp_path):
    for name, said in (
        ('', 'the name of the checkpoint is empty'),
        (str(tmp_path), 'is a directory, not a file'),
        (str(tmp_path / 'model.onnx'), 'is an exported model, which tools/test.py'),
    ):
        (tmp_path / 'model.onnx').touch()
        with pytest.raises(UserError, match=said):
            train(toy_config(tmp_path / 'work'), resume=name)


def warnings_of(config, file, capsys):
    runner = train(config, resume=str(file))
    lines = capsys.readouterr().out.splitlines()
    return runner, [line for line in lines if f'WARNING - {file}' in line]


def test_settings_that_differ_are_named(trained, tmp_path, capsys):
    file = trained / 'epoch_1.pth'
    _, said = warnings_of(toy_config(tmp_path / 'same', epochs=2), file, capsys)
    assert not said
    config = toy_config(
        tmp_path / 'other',
        epochs=2,
        optim_wrapper={'optimizer': {**ADAMW, 'lr': 0.5, 'weight_decay': 0.3}},
        param_scheduler={'type': 'LinearLR', 'start_factor': 0.5, 'begin': 0, 'end': 3},
    )
    runner, (said,) = warnings_of(config, file, capsys)
    assert 'weight_decay 0.01 (config: 0.3); lr 0.01 (config: 0.5)' in said
    assert 'param_scheduler.0.end 2 (config: 3)' in said
    assert 'param_scheduler.0.start_factor 0.1 (config: 0.5)' in said
    assert f'--cfg-options load_from={file}, without --resume' in said
    assert runner.optim_wrapper.get_lr()['lr'] == [0.01]


def test_a_complete_training(trained, tmp_path, capsys):
    config = toy_config(tmp_path / 'epochs', epochs=2)
    _, (said,) = warnings_of(config, trained / 'epoch_2.pth', capsys)
    assert 'the training is complete (epoch 2 of 2)' in said
    assert 'raise train_cfg.max_epochs' in said
    train(by_iteration(tmp_path / 'iterations'))
    again = by_iteration(tmp_path / 'iterations')
    _, (said,) = warnings_of(again, tmp_path / 'iterations/iter_6.pth', capsys)
    assert 'the training is complete (iter 6 of 6)' in said


def test_averaging_that_ends(trained, tmp_path, capsys):
    config = toy_config(tmp_path, epochs=2, custom_hooks=[])
    _, (said,) = warnings_of(config, trained / 'epoch_1.pth', capsys)
    assert 'averaged the weights with EMAHook, which this config does not have' in said


def test_the_last_checkpoint_was_deleted(tmp_path, capsys):
    run_toy(toy_config(tmp_path, epochs=3))
    (tmp_path / 'epoch_3.pth').unlink()
    assert train(toy_config(tmp_path, epochs=3), resume='auto').epoch == 3
    assert (tmp_path / 'epoch_3.pth').is_file()
    for file in tmp_path.glob('*.pth'):
        file.unlink()
    with pytest.raises(UserError, match='no whole checkpoint in'):
        train(toy_config(tmp_path, epochs=3), resume='auto')


@pytest.mark.parametrize('form', ['state_dict', 'bare', 'safetensors'])
def test_starting_from_weights_alone(saved, tmp_path, form):
    weights = dict(saved['state_dict'])
    file = tmp_path / f'weights.{"safetensors" if form == "safetensors" else "pth"}'
    if form == 'safetensors':
        save_file({name: value.contiguous() for name, value in weights.items()}, file)
    else:
        torch.save(weights if form == 'bare' else {'state_dict': weights}, file)
    config = toy_config(tmp_path / 'work', epochs=1, load_from=str(file))
    config.optim_wrapper.optimizer.lr = 0.0
    runner = train(config)
    (hook,) = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    for model in (runner.model, hook.ema_model.module):
        assert torch.equal(model.layers[0].weight, weights['layers.0.weight'])


def test_starting_from_another_model_with_averaging(trained, tmp_path, capsys):
    config = toy_config(tmp_path, epochs=1, load_from=str(trained / 'epoch_1.pth'))
    config.model.width = 8
    runner = train(config)
    assert '9 tensors keep their initial values' in capsys.readouterr().out
    assert runner.epoch == 1
