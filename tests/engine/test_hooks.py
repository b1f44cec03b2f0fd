"""A long training does not lose its progress."""

from types import SimpleNamespace

import pytest
import torch
from helpers.toy_run import ToyMetric, run_toy, toy_config
from mmengine.fileio import LocalBackend
from mmengine.runner.loops import _InfiniteDataloaderIterator

from lightvit_mm.engine.hooks import AMP_SKIPS, FiniteLossHook
from lightvit_mm.engine.whole_files import WholeFileBackend
from lightvit_mm.errors import UserError

# onedl-mmengine resumes at the right image without loading the earlier ones, so its workers draw
# other noise.
NOISE = 0.0 if hasattr(_InfiniteDataloaderIterator, 'skip_iter') else 0.1
LOADER = {
    'dataset': {'type': 'ToyData', 'noise': NOISE},
    'batch_size': 4,
    'num_workers': 1,
    'sampler': {'type': 'InfiniteSampler', 'shuffle': True},
}
BY_ITERATION = {
    'train_dataloader': LOADER,
    'train_cfg': {'by_epoch': False, 'max_iters': 8, 'val_interval': 3},
    'param_scheduler': {
        'type': 'LinearLR',
        'start_factor': 0.1,
        'begin': 0,
        'end': 8,
        'by_epoch': False,
    },
    'default_hooks': {
        'checkpoint': {'type': 'WholeCheckpointHook', 'interval': 3, 'by_epoch': False},
        'step_seed': {'type': 'StepSeedHook'},
    },
}


def state(work_dir, name):
    content = torch.load(work_dir / name, weights_only=False)
    tensors = {f'model {key}': value for key, value in content['state_dict'].items()}
    tensors |= {f'ema {key}': value for key, value in content['ema_state_dict'].items()}
    for index, moments in content['optimizer']['state'].items():
        tensors |= {f'optimizer {index} {key}': value for key, value in moments.items()}
    rates = [group['lr'] for group in content['optimizer']['param_groups']]
    return tensors, rates


@pytest.mark.parametrize(
    'workers, changes, last, steps, kept',
    [
        (0, {}, 'epoch_4.pth', 8, 6),
        (2, {}, 'epoch_4.pth', 8, 6),
        (1, BY_ITERATION, 'iter_8.pth', 5, 3),
    ],
    ids=['in-process', 'workers', 'iterations'],
)
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, workers, changes, last, steps, kept):
    """Killed after ``steps`` steps, when the last checkpoint was of step ``kept``."""
    _, losses = run_toy(toy_config(tmp_path / 'whole', workers=workers, **changes))
    _, before = run_toy(toy_config(tmp_path / 'killed', workers=workers, **changes), steps)
    assert before == losses[:steps]
    assert len(set(losses)) == len(losses)
    resumed = toy_config(tmp_path / 'killed', workers=workers, resume=True, **changes)
    _, after = run_toy(resumed)
    assert after == losses[kept:]
    expected, rates = state(tmp_path / 'whole', last)
    found, found_rates = state(tmp_path / 'killed', last)
    assert found_rates == rates
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_without_the_hook_a_resumed_run_draws_other_numbers(tmp_path):
    def config(name, **changes):
        config = toy_config(tmp_path / name, **changes)
        del config.default_hooks.step_seed
        return config

    _, losses = run_toy(config('whole'))
    run_toy(config('killed'), 8)
    _, after = run_toy(config('killed', resume=True))
    assert after != losses[6:]


def test_workers_of_every_epoch_draw_other_numbers(tmp_path):
    config = toy_config(tmp_path, epochs=2, workers=1)
    config.train_dataloader.sampler.shuffle = False
    config.optim_wrapper.optimizer.lr = 0.0
    config.model.width, config.custom_hooks = 4, []
    _, losses = run_toy(config)
    assert losses[:3] != losses[3:]


@pytest.mark.parametrize('kept', [1, 2])
def test_a_failing_write_leaves_the_checkpoints(tmp_path, monkeypatch, kept):
    config = toy_config(tmp_path, epochs=3)
    config.default_hooks.checkpoint.max_keep_ckpts = kept
    put = WholeFileBackend.put

    def full(self, obj, filepath):
        if 'epoch_3' in str(filepath):
            raise OSError(28, 'No space left on device')
        put(self, obj, filepath)

    monkeypatch.setattr(WholeFileBackend, 'put', full)
    with pytest.raises(OSError, match='No space left'):
        run_toy(config)
    assert (
        sorted(file.name for file in tmp_path.glob('*.pth'))
        == ['epoch_1.pth', 'epoch_2.pth'][2 - kept :]
    )


def test_the_best_checkpoint_goes_after_the_better_one_came(tmp_path, monkeypatch):
    config = toy_config(tmp_path, epochs=2)
    config.default_hooks.checkpoint.update(save_best='mean', rule='less')
    scores = iter([2.0, 1.0])
    monkeypatch.setattr(ToyMetric, 'compute_metrics', lambda *_: {'mean': next(scores)})
    remove = LocalBackend.remove
    present = []

    def noting(self, path):
        present.append(sorted(file.name for file in tmp_path.glob('best_*.pth')))
        remove(self, path)

    monkeypatch.setattr(WholeFileBackend, 'remove', noting)
    run_toy(config)
    assert present == [['best_mean_epoch_1.pth', 'best_mean_epoch_2.pth']]
    assert (tmp_path / 'best_mean_epoch_2.pth').is_file()
    assert not (tmp_path / 'best_mean_epoch_1.pth').exists()


def test_an_automatic_resume_passes_over_what_is_damaged(tmp_path, capsys):
    run_toy(toy_config(tmp_path, epochs=2))
    last = tmp_path / 'epoch_2.pth'
    last.write_bytes(last.read_bytes()[:-1000])
    _, losses = run_toy(toy_config(tmp_path, epochs=2, resume=True))
    assert len(losses) == 3
    assert f'{last} is damaged: passed over' in capsys.readouterr().out
    for file in tmp_path.glob('*.pth'):
        file.write_bytes(b'')
    with pytest.raises(UserError, match='no checkpoint in'):
        run_toy(toy_config(tmp_path, epochs=2, resume=True))


def test_an_automatic_resume_of_nothing_begins(tmp_path):
    _, losses = run_toy(toy_config(tmp_path, epochs=1, resume=True))
    assert len(losses) == 3


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    config = toy_config(tmp_path, epochs=4)
    config.model.undefined_from = 8
    with pytest.raises(UserError) as caught:
        run_toy(config)
    message = str(caught.value)
    assert 'training stopped at iteration 8: loss nan, grad_norm nan' in message
    batches = [line.split(': ')[1].split(', ') for line in message.split('\n')[1:3]]
    assert [len(batch) for batch in batches] == [4, 4]
    # Two batches of one epoch have no image in common.
    assert len(set(batches[0] + batches[1])) == 8
    assert all(name.startswith('images/') for batch in batches for name in batch)
    assert f'last good checkpoint: {tmp_path}/epoch_2.pth' in message


def test_gradients_that_are_no_numbers_stop_the_run(tmp_path, monkeypatch):
    """Without a gradient norm, the loss of the next step shows it."""
    config = toy_config(tmp_path, epochs=3)
    del config.optim_wrapper.clip_grad
    scale = torch.Tensor.backward

    def overflow(loss, *args, **kwargs):
        overflow.calls += 1
        scale(loss * (float('inf') if overflow.calls == 6 else 1), *args, **kwargs)

    overflow.calls = 0
    monkeypatch.setattr(torch.Tensor, 'backward', overflow)
    with pytest.raises(UserError) as caught:
        run_toy(config)
    assert 'training stopped at iteration 7: loss nan' in str(caught.value)
    # The step before was saved, with undefined weights.
    assert (tmp_path / 'epoch_2.pth').is_file()
    assert f'last good checkpoint: {tmp_path}/epoch_1.pth' in str(caught.value)


def test_a_loss_scaler_may_skip_steps_but_not_for_ever(tmp_path):
    losses = []
    hub = SimpleNamespace(
        log_scalars=['train/loss'],
        get_scalar=lambda name: SimpleNamespace(current=lambda: losses[-1]),
    )
    runner = SimpleNamespace(
        optim_wrapper=SimpleNamespace(loss_scaler=torch.amp.GradScaler('cpu')),
        message_hub=hub,
        logger=SimpleNamespace(log=lambda level, text: losses.append(losses[-1])),
        work_dir=str(tmp_path),
        iter=0,
    )
    hook = FiniteLossHook()
    hook.before_train(runner)
    for value in [float('inf')] * AMP_SKIPS + [1.0] + [float('nan')] * AMP_SKIPS:
        losses.append(value)
        hook.after_train_iter(runner, 0, outputs={'loss': value})
    losses.append(float('nan'))
    with pytest.raises(UserError, match=f'after {AMP_SKIPS} skipped steps in a row: loss nan'):
        hook.after_train_iter(runner, 0, outputs={'loss': losses[-1]})
