"""mmengine's EMAHook and EarlyStoppingHook together with our checkpoints and loading."""

from pathlib import Path

import torch
from helpers.toy_run import run_toy, toy_config

from lightvit_mm.engine.whole_files import latest_checkpoint

CHECKPOINT = {'type': 'WholeCheckpointHook', 'interval': 1, 'max_keep_ckpts': 1}


def test_averages_begin_from_the_checkpoint_that_is_loaded(tmp_path):
    run_toy(toy_config(tmp_path / 'first', epochs=1, custom_hooks=[]))
    file = latest_checkpoint(str(tmp_path / 'first'))
    frozen = [{'type': 'EMAHook', 'momentum': 1e-9, 'begin_iter': 2}]
    config = toy_config(tmp_path / 'second', epochs=1, custom_hooks=frozen, load_from=file)
    config.optim_wrapper.optimizer.lr = 0.0
    run_toy(config)
    before = torch.load(file, weights_only=False)['state_dict']
    after = torch.load(latest_checkpoint(str(tmp_path / 'second')), weights_only=False)
    for name, parameter in before.items():
        if 'running' not in name and 'num_batches' not in name:
            torch.testing.assert_close(after['state_dict'][name], parameter)


def test_checkpoints_hold_the_averages_that_were_evaluated(tmp_path):
    save = {**CHECKPOINT, 'save_best': 'mean', 'rule': 'greater'}
    config = toy_config(tmp_path, epochs=3, custom_hooks=[{'type': 'EMAHook', 'momentum': 0.1}])
    config.default_hooks.checkpoint = save
    runner, _ = run_toy(config)
    (hook,) = [hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook']
    content = torch.load(latest_checkpoint(str(tmp_path)), weights_only=False)
    for name, parameter in hook.ema_model.module.named_parameters():
        assert torch.equal(content['state_dict'][name], parameter)
        assert not torch.equal(content['state_dict'][name], runner.model.state_dict()[name])
    assert len(list(tmp_path.glob('best_mean_epoch_*.pth'))) == 1


def test_early_stopping(tmp_path):
    hooks = [
        {'type': 'EMAHook'},
        # So large a step that nothing counts as better than the first result.
        {
            'type': 'EarlyStoppingHook',
            'monitor': 'mean',
            'rule': 'greater',
            'min_delta': 100.0,
            'patience': 2,
        },
    ]
    config = toy_config(tmp_path, epochs=9, custom_hooks=hooks)
    config.default_hooks.checkpoint = {**CHECKPOINT, 'save_best': 'mean', 'rule': 'greater'}
    runner, losses = run_toy(config)
    assert (runner.epoch, len(losses)) == (3, 9)
    last = latest_checkpoint(str(tmp_path))
    assert Path(last).name == 'epoch_3.pth'
    assert len(list(tmp_path.glob('best_mean_epoch_*.pth'))) == 1
    # The hook saves no state, so a resumed run waits as long as a new one.
    config.update(resume=True, load_from=last, experiment_name='resumed')
    runner, losses = run_toy(config)
    assert (runner.epoch, len(losses)) == (6, 9)
