"""A short training of RTMDet on a user's data: mosaic, pipeline switch, average, resume, TTA."""

from pathlib import Path

import pytest
import torch
from helpers.repository import REPOSITORY
from helpers.small_data import ARCH, CLASSES

from lightvit_mm.data.own import use_own_data
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.running import test as evaluate
from lightvit_mm.engine.running import train
from lightvit_mm.errors import ConfigError, UserError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quick_runner')]


def reduced(value):
    """Settings of a pipeline for a tenth of the size."""
    if isinstance(value, dict):
        return {key: reduced(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(reduced, value))
    return value // 10 if value in (640, 1280) else value


def tiny_rtmdet(shapes, work_dir, epochs=3, name='rtmdet_edgevit_xxs_coco'):
    places = [
        (str(shapes / f'annotations/instances_{part}.json'), str(shapes / f'images/{part}'))
        for part in ('train', 'val')
    ]
    config = load_config(str(REPOSITORY / f'configs/{name}.py'), work_dir=str(work_dir))
    use_own_data(config, *places, classes_from=places[0][0])
    config.model.backbone.update(arch=ARCH, init_cfg=None)
    config.model.neck.update(in_channels=[8, 8, 8], out_channels=8)
    config.model.bbox_head.update(in_channels=8, feat_channels=8)
    config.model.test_cfg.score_thr = 0
    config.train_cfg.update(max_epochs=epochs, val_interval=epochs, dynamic_intervals=None)
    config.default_hooks.checkpoint.interval = 1
    switch = next(hook for hook in config.custom_hooks if hook.type == 'PipelineSwitchHook')
    switch.update(switch_epoch=2, switch_pipeline=reduced(switch.switch_pipeline))
    for part in ('train', 'val', 'test'):
        loader = config[f'{part}_dataloader']
        # Without workers, the images that the mosaic keeps would outlast an epoch.
        loader.update(batch_size=4, num_workers=1, persistent_workers=False)
        loader.dataset.pipeline = reduced(loader.dataset.pipeline)
    config.tta_pipeline = reduced(config.tta_pipeline)
    config.randomness = {'seed': 0}
    return config


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('work')
    train(tiny_rtmdet(shapes, work_dir))
    return work_dir


def test_a_resumed_run_is_the_run_that_was_not_interrupted(trained, shapes, tmp_path):
    runner = train(tiny_rtmdet(shapes, tmp_path), resume=str(trained / 'epoch_2.pth'))
    kinds = [type(step).__name__ for step in runner.train_dataloader.dataset.pipeline.transforms]
    assert 'RandomCrop' in kinds
    assert 'CachedMosaic' not in kinds
    theirs, ours = (
        torch.load(Path(folder, 'epoch_3.pth'), weights_only=False)
        for folder in (trained, tmp_path)
    )
    for part in ('state_dict', 'ema_state_dict'):
        assert theirs[part].keys() == ours[part].keys()
        for name, value in theirs[part].items():
            assert torch.equal(ours[part][name], value), name
    assert ours['meta']['dataset_meta']['classes'] == CLASSES


def test_a_head_of_another_width_than_the_neck(shapes, tmp_path):
    config = tiny_rtmdet(shapes, tmp_path)
    config.model.bbox_head.update(in_channels=96)
    with pytest.raises(ConfigError, match=r'bbox_head\.in_channels is 96, .*PAFPN.* gives 8'):
        train(config)


def test_evaluation_over_flips(trained, shapes, tmp_path):
    content = torch.load(trained / 'epoch_3.pth', weights_only=False)
    for level in range(3):  # so short a training finds no box of positive size
        content['state_dict'][f'bbox_head.rtm_reg.{level}.bias'][:] = 1.0
    torch.save(content, tmp_path / 'epoch_3.pth')
    config = tiny_rtmdet(shapes, tmp_path)
    metrics = evaluate(config, str(tmp_path / 'epoch_3.pth'), tta=True)
    assert 'coco/bbox_mAP' in metrics


def test_masks(shapes, tmp_path):
    config = tiny_rtmdet(shapes, tmp_path, epochs=1, name='rtmdet_ins_edgevit_xxs_coco')
    runner = train(config)
    scalars = runner.message_hub.log_scalars
    losses, _ = scalars['train/loss_mask'].data
    assert len(losses) > 1
    assert all(0 < loss <= 2 for loss in losses)
    assert 'val/coco/segm_mAP' in scalars
    with pytest.raises(UserError, match='--tta: mmdet averages boxes only'):
        evaluate(config, str(tmp_path / 'epoch_1.pth'), tta=True)
