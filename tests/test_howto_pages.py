"""The Python of the docs does what the pages say."""

import io
from contextlib import redirect_stdout

import cv2
import numpy as np
import pytest
import torch
from helpers import small_data, timm_reference
from helpers.doc_pages import blocks
from helpers.repository import REPOSITORY

from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.model_checks import check_channels

CONFIGS = blocks(REPOSITORY / 'docs/add_to_your_config.md', 'python')
FIRST, *NEXT = blocks(REPOSITORY / 'docs/backbones.md', 'python')
(FOLDING,) = blocks(REPOSITORY / 'docs/deploy.md', 'python')
*PREDICTING, SUPERVISION = blocks(REPOSITORY / 'docs/python.md', 'python')


@pytest.mark.parametrize('number', range(len(CONFIGS)))
def test_a_backbone_in_openmmlabs_configs(number, tmp_path):
    from mmengine.registry import MODELS, init_default_scope

    (tmp_path / 'mine.py').write_text(CONFIGS[number])
    config = load_config(str(tmp_path / 'mine.py'))
    config.model.backbone.init_cfg = None
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model).eval()
    check_channels(model, config.model)
    with torch.no_grad():
        outputs = model(torch.randn(1, 3, 64, 96), mode='tensor')
    assert all(output.isfinite().all() for level in outputs for output in level)


def test_there_is_one_of_each():
    assert [name for text in CONFIGS for name in ('mmdet::', 'mmseg::') if name in text] == [
        'mmdet::',
        'mmseg::',
    ]


def test_names_of_backbones_and_weights(capsys):
    exec(FIRST, {})
    said = capsys.readouterr().out
    assert 'edgevit_s (4, 8, 16, 32) (48, 96, 240, 384) 12.7 M' in said
    assert 'repvit_m1_1.distill_300e 80.7 THU-MIG/RepViT Apache-2.0' in said


@pytest.mark.parametrize('text', NEXT, ids=['plain', 'torchvision', 'timm'])
def test_a_backbone_by_name(text, network, tmp_path, capsys):
    import lightvit_mm

    if 'adapters' in text:
        timm_reference.import_timm()
    (weights,) = lightvit_mm.list_weights('edgevit_s')
    torch.save(lightvit_mm.create_backbone('edgevit_s').state_dict(), tmp_path / 'weights.pth')
    network.answers[weights.address] = (tmp_path / 'weights.pth').read_bytes()
    scope: dict = {}
    exec(text, scope)
    assert network.asked == [weights.address]
    said = capsys.readouterr().out
    if 'model' in scope:
        assert scope['model'].backbone.out_channels == 256
    elif 'levels' in scope:
        assert '(96, 240, 384) (8, 16, 32) [(1, 96, 60, 80)' in said
    else:
        assert '[48, 96, 240, 384] [4, 8, 16, 32]' in said


def test_folding(tmp_path, monkeypatch):
    from mmengine.registry import MODELS, init_default_scope

    config = load_config(str(REPOSITORY / 'configs/retinanet_edgevit_xxs_shapes.py'))
    init_default_scope('mmdet')
    model = MODELS.build(config.model).eval()
    checkpoint = {'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': ('a',)}}}
    torch.save(checkpoint, tmp_path / 'whole.pth')
    monkeypatch.chdir(tmp_path)
    scope = {'CONFIG': config, 'CHECKPOINT': 'whole.pth'}
    exec(FOLDING, scope)
    config.model.backbone.deploy = True
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.backbone(images)
        for file in ('whole.pth', 'folded.pth'):
            folded = MODELS.build(config.model).eval()
            content = torch.load(file)
            folded.load_state_dict(content.get('state_dict', content))
            for output, level in zip(folded.backbone(images), expected, strict=True):
                torch.testing.assert_close(output, level, atol=1e-4, rtol=1e-4)
    with pytest.raises(RuntimeError, match='deploy=True'):
        model.load_state_dict(torch.load('folded.pth'))


@pytest.fixture(scope='module')
def predicting(shapes, tmp_path_factory):
    """What the first blocks of docs/python.md leave, run after a quickstart without a training."""
    folder = tmp_path_factory.mktemp('predicting')
    config = load_config(str(REPOSITORY / 'configs/retinanet_edgevit_xxs_shapes.py'))
    (folder / 'work_dirs/quickstart').mkdir(parents=True)
    small_data.save_checkpoint(config, folder / 'work_dirs/quickstart/epoch_4.pth')
    (folder / 'data').mkdir()
    (folder / 'data/shapes').symlink_to(shapes)
    writer = cv2.VideoWriter(
        str(folder / 'clip.mp4'), cv2.VideoWriter.fourcc(*'mp4v'), 5, (128, 96)
    )
    for grey in (50, 90, 130):
        writer.write(np.full((96, 128, 3), grey, np.uint8))
    writer.release()
    scope: dict = {}
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.chdir(folder)
        for text in PREDICTING:
            exec(text.replace('score_thr=0.3', 'score_thr=0'), scope)
    return folder, scope, said.getvalue()


def test_predicting(predicting):
    folder, scope, said = predicting
    assert cv2.imread(str(folder / 'drawn.png')).shape == (128, 128, 3)
    assert said.count('Detections(data/shapes/images/val/') == 4
    assert (scope['first'].boxes == scope['second'].boxes).all()
    assert scope['result'].frame == 2
    assert cv2.imread(str(folder / 'frame.jpg')).shape == (96, 128, 3)


def test_supervision(predicting):
    pytest.importorskip('supervision', reason='not installed: pip install supervision')
    _, scope, _ = predicting
    exec(SUPERVISION, scope)
    assert len(scope['detections']) == len(scope['result']) > 0
    assert (scope['picture'] != scope['result'].image).any()
