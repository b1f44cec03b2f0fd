"""No weights file can run code, however it is loaded and however the code is hidden."""

import os

import pytest
import torch
from helpers import small_data
from helpers.repository import REPOSITORY
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint

from lightvit_mm.backbones import EdgeViT
from lightvit_mm.checkpoints import CheckpointError
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.predicting import predict
from lightvit_mm.engine.running import test as evaluate
from lightvit_mm.engine.running import train
from lightvit_mm.export.exporting import export

pytestmark = pytest.mark.usefixtures('quick_runner')


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


SYSTEM = Calls(os.system, 'touch was_run')
EVIL = {
    'system': {'state_dict': {'weight': SYSTEM}},
    'nested in meta': {'state_dict': {}, 'meta': {'deep': [{'er': SYSTEM}], 'epoch': 1}},
    # getattr is allowed, but only for the one use in mmengine's own checkpoints.
    'getattr': {'state_dict': {}, 'meta': Calls(getattr, HistoryBuffer, '__init__')},
}


@pytest.fixture(params=EVIL)
def file(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(EVIL[request.param], tmp_path / 'evil.pth')
    return tmp_path / 'evil.pth'


def segmentor():
    config = load_config(str(REPOSITORY / 'configs/semantic_fpn_edgevit_xxs_ade20k.py'))
    config.model.backbone.arch = small_data.ARCH
    config.model.neck.update(in_channels=[8] * 4)
    return config


def init_detector(config, file):
    from mmdet.apis import init_detector

    init_detector(config, str(file), device='cpu')


def init_model(config, file):
    from mmseg.apis import init_model

    init_model(segmentor(), str(file), device='cpu')


WAYS = {
    'init_cfg': lambda config, file: EdgeViT(
        arch=small_data.ARCH, init_cfg={'type': 'Pretrained', 'checkpoint': str(file)}
    ).init_weights(),
    'load_checkpoint': lambda config, file: load_checkpoint(torch.nn.Linear(1, 1), str(file)),
    'train, init_cfg': lambda config, file: train(
        config.merge_from_dict(
            {'model.backbone.init_cfg': {'type': 'Pretrained', 'checkpoint': str(file)}}
        )
        or config
    ),
    'train, load_from': lambda config, file: train(
        config.merge_from_dict({'load_from': str(file)}) or config
    ),
    'train, resume': lambda config, file: train(config, resume=str(file)),
    'test': lambda config, file: evaluate(config, str(file)),
    'predict': lambda config, file: predict(config, str(file), str(file.parent / '*.png'), 'out'),
    'export': lambda config, file: export(
        config, str(file), 'out.onnx', (64, 64), backbone_only=True
    ),
    'init_detector': init_detector,
    'init_model': init_model,
}


REFUSED = r'was refused: (loading it would call|it holds getattr)'


@pytest.mark.parametrize('way', WAYS)
def test_local_files(small_coco, tmp_path, file, way):
    (tmp_path / 'a.png').write_bytes((small_coco / 'images/train/a.png').read_bytes())
    with pytest.raises(CheckpointError, match=REFUSED) as error:
        WAYS[way](small_data.tiny_detector(small_coco, tmp_path), file)
    assert str(file) in str(error.value)
    assert not (tmp_path / 'was_run').exists()


@pytest.mark.parametrize(
    'address', ['https://site.example/net.pth', 'timm://repvit_m1', 'openmmlab://n', 'mmcls://n']
)
def test_downloads(network, monkeypatch, tmp_path, file, address):
    for table in ('get_external_models', 'get_mmcls_models'):
        known = {'n': 'https://site.example/net.pth'}
        monkeypatch.setattr(mmengine_checkpoint, table, lambda known=known: known)
    network.answers['https://site.example/net.pth'] = file.read_bytes()
    timm = 'https://huggingface.co/timm/repvit_m1.dist_in1k/resolve/main/model.safetensors'
    network.answers[timm] = file.read_bytes()
    monkeypatch.delenv('HF_ENDPOINT', raising=False)
    # timm's files are safetensors, which hold no pickle; any other file is refused.
    with pytest.raises(CheckpointError, match=f'{REFUSED}|SafetensorError'):
        CheckpointLoader.load_checkpoint(address)
    assert network.asked
    assert not (tmp_path / 'was_run').exists()


def test_the_config_inside_a_checkpoint_is_not_run(small_coco, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = small_data.tiny_detector(small_coco, tmp_path)
    config.train_cfg = {'type': 'EpochBasedTrainLoop', 'max_epochs': 1, 'val_interval': 9}
    config.default_hooks.checkpoint.interval = 1
    train(config)
    saved = torch.load(tmp_path / 'work/epoch_1.pth', weights_only=False)
    source = 'import os\nos.mkdir("was_run")\n'
    # mmengine's resume runs the first of these, unless our reader takes it out.
    saved['meta'].update(config=source, cfg=source)
    saved['message_hub']['runtime_info']['cfg'] = source
    torch.save(saved, tmp_path / 'evil.pth')
    resumed = train(
        small_data.tiny_detector(small_coco, tmp_path, **{'train_cfg.max_epochs': 1}),
        str(tmp_path / 'evil.pth'),
    )
    assert resumed.epoch == 1
    assert not (tmp_path / 'was_run').exists()
