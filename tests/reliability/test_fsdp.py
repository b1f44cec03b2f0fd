"""One epoch by mmengine's FSDPStrategy on two processes without a GPU. About half a minute."""

import functools
import multiprocessing
import os

import pytest
import torch
from helpers.repository import REPOSITORY

from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.whole_files import is_whole
from lightvit_mm.shapes.dataset import make_shapes

pytestmark = [pytest.mark.slow, pytest.mark.reliability]

# As parameters, not as a copy on the first process's CPU: that copy is the memory that torch frees.
FULL = {'offload_to_cpu': False, 'rank0_only': False}


def train(rank, data, work_dir, report):
    from mmengine.runner import FlexibleRunner
    from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    store = f'file://{work_dir}.store'
    torch.distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    config = load_config(
        str(REPOSITORY / 'configs/retinanet_edgevit_xxs_shapes.py'),
        {'model.test_cfg.score_thr': 0.01, 'optim_wrapper.optimizer.fused': False},
        data, work_dir, 'pytorch',
    )  # fmt: skip
    strategy = {
        'type': 'FSDPStrategy',
        'model_wrapper': {
            'type': 'MMFullyShardedDataParallel',
            # mmengine's default is the GPU of the process's number.
            'device_id': torch.device('cpu'),
            'auto_wrap_policy': functools.partial(
                size_based_auto_wrap_policy, min_num_params=200_000
            ),
        },
        'state_dict_cfg': {
            'state_dict_type': 'FULL_STATE_DICT',
            'state_dict_config': {'type': 'FullStateDictConfig', **FULL},
            'optim_state_dict_config': {'type': 'FullOptimStateDictConfig', **FULL},
        },
    }
    parts = (
        'model', 'work_dir', 'train_dataloader', 'val_dataloader', 'val_evaluator', 'val_cfg',
        'optim_wrapper', 'param_scheduler', 'default_hooks', 'launcher', 'env_cfg', 'visualizer',
        'default_scope', 'log_processor', 'randomness',
    )  # fmt: skip
    runner = FlexibleRunner(
        **{part: config[part] for part in parts},
        strategy=strategy,
        train_cfg={'by_epoch': True, 'max_epochs': 1, 'val_interval': 1},
    )
    runner.train()
    held = sum(parameter.numel() for parameter in runner.model.parameters())
    report.put((rank, held, float(runner.message_hub.get_scalar('train/loss').current())))
    torch.distributed.barrier()


def test_sharded_training(tmp_path):
    data, work_dir = tmp_path / 'shapes', tmp_path / 'work'
    make_shapes(data, num_train=32, num_val=4)
    context = multiprocessing.get_context('fork')
    report = context.Queue()
    processes = [
        context.Process(target=train, args=(rank, str(data), str(work_dir), report))
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    reports = sorted(report.get(timeout=300) for _ in processes)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert is_whole(work_dir / 'epoch_1.pth')
    content = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    whole = sum(v.numel() for k, v in content['state_dict'].items() if 'running' not in k)
    print(f'parameters held by each process: {[held for _, held, _ in reports]}, of {whole}')
    assert all(held < 0.6 * whole for _, held, _ in reports)
    assert all(loss < 3 for _, _, loss in reports)
