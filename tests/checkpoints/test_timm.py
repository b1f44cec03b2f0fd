"""timm's weights, made by timm itself, in our backbones: every tensor taken, the same outputs."""

import re

import pytest
import torch
from helpers import timm_reference
from helpers.variants import largest_deviation
from mmengine.runner import CheckpointLoader
from safetensors.torch import save, save_file

from lightvit_mm import backbones
from lightvit_mm.checkpoints import CheckpointError
from lightvit_mm.checkpoints.timm_weights import DEFAULT_TAGS, timm_address

# Name in timm to our class, our arch, and how many levels, from the finest, are comparable.
MODELS = {
    **{f'repvit_m{i}': ('RepViT', f'm{i}', 4) for i in (1, 2, 3)},
    **{f'repvit_{arch}': ('RepViT', arch, 4) for arch in ('m0_9', 'm1_0', 'm1_1', 'm1_5', 'm2_3')},
    # At 224 timm's last stage works in a window of 4 x 4, ours in one of 7 x 7 as in detection.
    **{f'efficientvit_m{i}': ('EfficientViT', f'm{i}', 2) for i in range(6)},
    **{f'mobilevit_{arch}': ('MobileViT', arch, 4) for arch in ('xxs', 'xs', 's')},
    'swin_tiny_patch4_window7_224': ('ShuffleSwin', 'tiny', 4),
}
OPTIONS = {
    'MobileViT': {'expand_last': True},
    'ShuffleSwin': {'shuffle': False, 'out_norm': False},
}


@pytest.fixture(scope='module')
def timm():
    return timm_reference.import_timm()


@pytest.mark.parametrize('name', MODELS)
def test_same_outputs(timm, tmp_path, name, mm_log):
    family, arch, levels = MODELS[name]
    theirs = timm.create_model(name, features_only=True).eval()
    whole = timm.create_model(name).eval()
    timm_reference.randomise(whole)
    # timm's pyramid is the model without head under other names; both keep their order.
    pairs = zip(theirs.state_dict().values(), whole.state_dict().items(), strict=False)
    for value, (key, source) in pairs:
        assert value.shape == source.shape, key
        value.copy_(source)
    file = tmp_path / 'model.safetensors'
    save_file(whole.state_dict(), file)

    init_cfg = {'type': 'Pretrained', 'checkpoint': str(file)}
    ours = getattr(backbones, family)(arch=arch, init_cfg=init_cfg, **OPTIONS.get(family, {}))
    ours.init_weights()
    assert any('tensors from the timm' in line for line in mm_log)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        outputs, expected = ours.eval()(x), theirs(x)
    if family == 'ShuffleSwin':
        expected = [level.permute(0, 3, 1, 2) for level in expected]
    expected = expected[-len(outputs) :]
    assert largest_deviation(outputs[:levels], expected[:levels]) < 1e-4


def test_same_tokens_of_deit(timm, tmp_path):
    theirs = timm.create_model('deit_tiny_patch16_224').eval()
    timm_reference.randomise(theirs)
    file = tmp_path / 'model.safetensors'
    save_file(theirs.state_dict(), file)
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(file)}
    ours = backbones.ShuffleDeiT(arch='tiny', shuffle=False, init_cfg=init_cfg)
    ours.init_weights()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs.forward_intermediates(
            x, indices=[2, 5, 8, 11], intermediates_only=True, norm=False
        )
        assert largest_deviation(ours.eval().stage_maps(x), expected) < 1e-4


@pytest.mark.parametrize('name', [*MODELS, 'deit_tiny_patch16_224'])
def test_the_default_tag_is_timms(timm, name):
    tag = timm.models.get_pretrained_cfg(name).tag
    assert timm_address(f'timm://{name}').endswith(
        f'huggingface.co/timm/{name}.{tag}/resolve/main/model.safetensors'
    )


def test_every_default_tag_belongs_to_a_model(timm):
    names = timm.list_models(pretrained=True)
    for pattern, tag in DEFAULT_TAGS:
        assert any(re.fullmatch(rf'{pattern}\.{tag}', name) for name in names), pattern


@pytest.mark.parametrize('name', ['resnet50', 'a/../b.c', '', 'repvit_m1_1.'])
def test_names_that_are_refused(name):
    with pytest.raises(CheckpointError, match='timm://'):
        timm_address(name)


def test_fetched_once_and_read(network, monkeypatch):
    address = (
        'https://mirror.example/timm/repvit_m1_1.dist_450e_in1k/resolve/main/model.safetensors'
    )
    network.answers[address] = save({'x': torch.ones(2)})
    monkeypatch.setenv('HF_ENDPOINT', 'https://mirror.example/')
    for _ in range(2):
        content = CheckpointLoader.load_checkpoint('timm://repvit_m1_1.dist_450e_in1k')
        assert content['x'].sum() == 2
    assert network.asked == [address]


def test_no_network_is_said(network):
    with pytest.raises(CheckpointError, match=r'no route.*Without a network'):
        CheckpointLoader.load_checkpoint('timm://repvit_m1')


def test_an_unprotected_mirror_is_refused(monkeypatch):
    monkeypatch.setenv('HF_ENDPOINT', 'http://mirror.example')
    with pytest.raises(CheckpointError, match='https'):
        CheckpointLoader.load_checkpoint('timm://repvit_m1')
