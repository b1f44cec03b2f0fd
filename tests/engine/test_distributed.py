"""The same step on one process and on two."""

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from helpers.repository import REPOSITORY
from helpers.toy_run import toy_config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from torch import nn

from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.running import train

SIDE = 64


def detection_batch():
    """Two different images, and the same two again: each half has as many positive anchors."""
    from mmdet.structures import DetDataSample

    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, SIDE, SIDE, generator=generator).repeat(2, 1, 1, 1) * 255
    samples = []
    for index in range(4):
        size = 20.0 + 15 * (index % 2)
        sample = DetDataSample(metainfo={'img_shape': (SIDE, SIDE), 'pad_shape': (SIDE, SIDE)})
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[5.0, 6, 5 + size, 6 + size]]), labels=torch.tensor([index % 2])
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0))
        samples.append(sample)
    return list(images), samples


def segmentation_batch():
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(1)
    images = torch.rand(4, 3, SIDE, SIDE, generator=generator) * 255
    labels = torch.randint(0, 150, (4, 1, SIDE, SIDE), generator=generator)
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=label), metainfo={'img_shape': (SIDE, SIDE)})
        for label in labels
    ]
    return list(images), samples


def model_of(config_file):
    config = load_config(str(REPOSITORY / 'configs' / config_file), launcher='pytorch')
    init_default_scope(config.default_scope)
    config.model.backbone.update(drop_path_rate=0.0, norm_eval=True)
    if 'decode_head' in config.model:
        config.model.decode_head.dropout_ratio = 0.0
        config.model.data_preprocessor.size = (SIDE, SIDE)
    torch.manual_seed(0)
    model = MODELS.build(config.model).train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model, config.model_wrapper_cfg


def gradients(model, batch):
    images, samples = batch
    inner = getattr(model, 'module', model)
    data = inner.data_preprocessor({'inputs': images, 'data_samples': samples}, True)
    loss, _ = inner.parse_losses(model(**data, mode='loss'))
    loss.backward()
    return {
        name: parameter.grad
        for name, parameter in inner.named_parameters()
        if parameter.grad is not None
    }


def join_group(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )


def on_two_processes(function, *arguments):
    """Exit codes of two processes that call ``function(rank, *arguments)``."""
    # Forked processes need not import everything again.
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=function, args=(rank, *arguments)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def half(rank, config_file, batch, folder):
    join_group(rank, folder)
    model, wrapper = model_of(config_file)
    assert wrapper.pop('type') == 'MMDistributedDataParallel'
    images, samples = batch
    mine = slice(2 * rank, 2 * rank + 2)
    found = gradients(MMDistributedDataParallel(model, **wrapper), (images[mine], samples[mine]))
    torch.save(found, folder / f'{rank}.pth')
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    'config_file, make_batch',
    [
        ('retinanet_edgevit_xxs_coco.py', detection_batch),
        ('semantic_fpn_edgevit_xxs_ade20k.py', segmentation_batch),
    ],
    ids=['detector', 'segmentor'],
)
def test_gradients_of_two_processes_are_those_of_one(tmp_path: Path, config_file, make_batch):
    batch = make_batch()
    expected = gradients(model_of(config_file)[0], batch)
    assert on_two_processes(half, config_file, batch, tmp_path) == [0, 0]
    of_halves = [torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1)]
    assert len(expected) > 100
    for name, gradient in expected.items():
        assert torch.equal(of_halves[0][name], of_halves[1][name]), name
        # Relative to the largest entry, which is in the hundreds for the stem.
        difference = (of_halves[0][name] - gradient).abs().max()
        assert difference <= 1e-5 * gradient.abs().max(), name


def test_synchronised_norms_become_plain_without_cuda(capsys):
    if torch.cuda.is_available():
        pytest.skip('SyncBN stays on this machine')
    file = str(REPOSITORY / 'configs/deeplabv3_mobilevit_xxs_voc12aug.py')
    for launcher in ('none', 'pytorch'):
        config = load_config(file, launcher=launcher)
        assert config.model.backbone.norm_cfg.type == 'BN'
        assert config.model.decode_head.norm_cfg.type == 'BN'
        said = 'each process normalises over its own images' in capsys.readouterr().out
        assert said == (launcher == 'pytorch')


def train_and_leave(rank, folder):
    join_group(rank, folder)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    config = toy_config(folder / 'work', epochs=1, launcher='pytorch')
    config.model_wrapper_cfg = {'type': 'MMDistributedDataParallel', 'device_ids': None}
    runner = train(config)
    threads = [task.joinpath('comm').read_text() for task in Path('/proc/self/task').iterdir()]
    assert not [name for name in threads if 'gloo' in name], threads
    assert runner.iter == 2


def test_no_thread_of_the_group_outlives_a_training(tmp_path):
    """Such a thread sometimes aborts the process while the interpreter shuts down."""
    assert on_two_processes(train_and_leave, tmp_path) == [0, 0]
    assert (tmp_path / 'work' / 'epoch_1.pth').is_file()
