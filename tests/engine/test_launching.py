"""Several processes: the Slurm script, the launchers, and the scaling of the learning rate."""

import os
import subprocess

import pytest
import torch
from helpers.repository import REPOSITORY, run_tool
from mmengine.runner import Runner

from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.running import show_param_groups

SLURM = str(REPOSITORY / 'tools/slurm_train.sh')
CONFIG = 'configs/mask_rcnn_repvit_m1_1_coco.py'
TRAIN = ('gpu', 'job', CONFIG, 'out')


def slurm_train(*arguments, path, **variables):
    environment = {k: v for k, v in os.environ.items() if k not in ('GPUS', 'MASTER_PORT')}
    return subprocess.run(
        ['/bin/bash', SLURM, *arguments],
        cwd=REPOSITORY,
        env={**environment, 'PATH': path, **variables},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def srun(tmp_path):
    """A PATH whose srun prints what it was called with."""
    file = tmp_path / 'srun'
    file.write_text('#!/bin/bash\necho "port $MASTER_PORT"\nprintf "%s\\n" "$@"\n')
    file.chmod(0o755)
    return f'{tmp_path}:/usr/bin:/bin'


def test_slurm_command_line(srun):
    done = slurm_train(*TRAIN, '--resume', '--cfg-options', 'a="(1, 2)"', path=srun)
    assert done.returncode == 0, done.stderr
    port, *words = done.stdout.splitlines()
    assert 20000 <= int(port.split()[1]) < 40000
    split = words.index('python')
    assert words[:split] == [
        '--partition=gpu',
        '--job-name=job',
        '--gres=gpu:8',
        '--ntasks=8',
        '--ntasks-per-node=8',
        '--cpus-per-task=5',
        '--kill-on-bad-exit=1',
    ]
    assert words[split + 1 :] == [
        '-u',
        str(REPOSITORY / 'tools/train.py'),
        CONFIG,
        *('--work-dir', 'out', '--launcher', 'slurm'),
        *('--resume', '--cfg-options', 'a="(1, 2)"'),
    ]


@pytest.mark.parametrize(
    ('variables', 'words'),
    [
        ({'GPUS': '16'}, ['--gres=gpu:8', '--ntasks=16', '--ntasks-per-node=8']),
        ({'GPUS': '2'}, ['--gres=gpu:2', '--ntasks=2', '--ntasks-per-node=2']),
        ({'GPUS_PER_NODE': '4', 'CPUS_PER_TASK': '3'}, ['--gres=gpu:4', '--cpus-per-task=3']),
        ({'SRUN_ARGS': '--time=5:00 --qos=high'}, ['--time=5:00', '--qos=high']),
        ({'MASTER_PORT': '12345'}, ['port 12345']),
    ],
)
def test_slurm_variables(srun, variables, words):
    done = slurm_train(*TRAIN, path=srun, **variables)
    assert done.returncode == 0, done.stderr
    assert set(words) <= set(done.stdout.splitlines())


@pytest.mark.parametrize(
    ('arguments', 'variables', 'message'),
    [
        (TRAIN[:3], {}, 'PARTITION JOB_NAME CONFIG WORK_DIR'),
        (TRAIN, {'GPUS': '12'}, 'GPUS=12 is not a multiple of GPUS_PER_NODE=8'),
        (('gpu', 'job', 'configs/none.py', 'out'), {}, 'there is no config configs/none.py'),
    ],
)
def test_slurm_mistakes(srun, arguments, variables, message):
    done = slurm_train(*arguments, path=srun, **variables)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ''


def test_slurm_takes_the_name_of_a_config(srun):
    done = slurm_train('gpu', 'job', 'retinanet_edgevit_s_coco', 'out', path=srun)
    assert done.returncode == 0, done.stderr
    assert 'retinanet_edgevit_s_coco' in done.stdout.splitlines()


def test_without_slurm():
    done = slurm_train(*TRAIN, path='/usr/bin:/bin')
    assert done.returncode == 2
    assert 'srun is not on PATH' in done.stderr
    assert 'tools/dist_train.sh' in done.stderr


@pytest.mark.parametrize(
    ('launcher', 'message'),
    [('pytorch', 'RANK is not set'), ('slurm', 'SLURM_PROCID is not set')],
)
def test_a_launcher_that_did_not_start_the_process(launcher, message, shapes):
    done = run_tool(
        'tools/train.py', 'configs/retinanet_edgevit_xxs_shapes.py', '--launcher', launcher,
        '--data-root', shapes,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert 'tools/slurm_train.sh' in done.stderr


def test_slurm_wants_cuda(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip('it is there')
    monkeypatch.setenv('SLURM_PROCID', '0')
    config = load_config(str(REPOSITORY / CONFIG), launcher='slurm')
    with pytest.raises(RuntimeError, match='needs CUDA'):
        show_param_groups(config)


@pytest.mark.parametrize(('backend', 'warned'), [('gloo', True), ('nccl', False)])
def test_a_config_of_a_cpu_on_gpus(backend, warned, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    options = {'env_cfg.dist_cfg.backend': backend}
    config = load_config(str(REPOSITORY / CONFIG), options, launcher='pytorch')
    assert config.env_cfg.dist_cfg.backend == backend
    assert ('For GPUs, nccl is faster' in capsys.readouterr().out) == warned


# Batches of 8 x 2, 8 x 4 and 8 x 16.
@pytest.mark.parametrize(
    'name',
    [
        'retinanet_edgevit_xxs_coco',
        'semantic_fpn_edgevit_xxs_ade20k',
        'ssdlite_mobilevit_xxs_coco',
        'deeplabv3_mobilevit_xxs_voc12aug',
    ],
)
def test_the_learning_rate_follows_the_number_of_processes(name, monkeypatch, capsys):
    for processes in (1, 4, 8):
        monkeypatch.setattr(Runner, 'world_size', processes)
        config = load_config(str(REPOSITORY / f'configs/{name}.py'))
        # mmengine keeps runners and visualizers of one name apart by the second of their start.
        config.experiment_name = f'{name} on {processes}'
        config.visualizer = {'type': 'Visualizer', 'vis_backends': None}
        show_param_groups(config, auto_scale_lr=True)
        printed = capsys.readouterr().out
        expected = config.optim_wrapper.optimizer.lr * processes / 8
        assert f' {expected:.4g} ' in printed, printed
