"""The records of published weights: complete, distinct, and those that the configs name."""

import re
from urllib.parse import urlsplit

import pytest
import torch
from helpers.configs import load_once
from helpers.repository import REPOSITORY
from safetensors.torch import save

from lightvit_mm.backbones.families import FAMILIES
from lightvit_mm.backbones.repvit import RepViT
from lightvit_mm.checkpoints.timm_weights import SCHEME
from lightvit_mm.checkpoints.weights import WEIGHTS, find_weights, named_weights
from lightvit_mm.errors import UserError

CONFIGS = [f for f in sorted((REPOSITORY / 'configs').glob('*.py')) if '_in1k' not in f.stem]


@pytest.mark.parametrize('weights', WEIGHTS, ids=lambda weights: weights.name)
def test_every_record_is_of_a_model_of_ours_and_complete(weights):
    family = next(key for key in FAMILIES if weights.model.startswith(f'{key}_'))
    backbone = FAMILIES[family].backbone
    arch = weights.model.removeprefix(f'{family}_')
    assert arch in backbone.arch_settings
    with torch.device('meta'):
        model = backbone(arch)
    assert weights.layout in {layout.name for layout in model.layouts}
    assert urlsplit(weights.url).scheme == 'https'
    assert weights.address.startswith(('https://', SCHEME))
    release = weights.release
    assert urlsplit(release.url).scheme == 'https'
    assert release.channels in ('RGB', 'BGR')
    assert release.crop < release.resize
    assert weights.top1 is None or 60 < weights.top1 < 85
    assert (weights.paper_top1 is not None) is release.third_party
    assert find_weights(weights.address) == named_weights(weights.name) == weights


def test_names_and_addresses_are_distinct():
    for values in ([w.name for w in WEIGHTS], [w.address for w in WEIGHTS]):
        assert len(set(values)) == len(values)


@pytest.mark.parametrize('file', CONFIGS, ids=lambda file: file.stem)
def test_a_config_begins_with_the_first_weights_of_its_model(file):
    """Its first comment says where they are not the paper's own."""
    config = load_once(file)
    init_cfg = config.model.backbone.get('init_cfg')
    if init_cfg is None:
        assert 'shuffle' in file.stem or file.stem.endswith('_shapes')
        return
    family = next(key for key in FAMILIES if f'_{key}_' in file.stem)
    model = f'{family}_{config.model.backbone.arch}'
    weights = next(weights for weights in WEIGHTS if weights.model == model)
    assert init_cfg == {'type': 'Pretrained', 'checkpoint': weights.address}
    release, preprocessor = weights.release, config.model.data_preprocessor
    assert list(preprocessor.mean) == list(release.mean)
    assert list(preprocessor.std) == list(release.std)
    assert preprocessor.bgr_to_rgb is (release.channels == 'RGB')
    if release.third_party:
        comment = ' '.join(re.findall(r'^# (.*)', file.read_text(), re.M))
        assert f"EasyCV's (top-1 {weights.top1}, the paper's {weights.paper_top1})" in comment


def test_a_name_without_tag_is_the_same_file():
    assert find_weights('timm://repvit_m1_1') == named_weights('repvit_m1_1.timm_dist_300e_in1k')
    assert find_weights('timm://repvit_m1_1.another') is None
    assert find_weights('/home/me/repvit_m1_1_distill_300e.pth') is None


def test_the_hash_is_that_in_the_name():
    assert named_weights('mobilevit_s.mmpretrain').sha256 == 'cb4f741c'
    assert named_weights('mobilevit_s.cvnets').sha256 is None


def test_an_unknown_name():
    with pytest.raises(UserError, match=r"'repvit_m1_1\.dist'; there are.*m1_1\.distill_300e"):
        named_weights('repvit_m1_1.dist')


@pytest.mark.parametrize(
    ('address', 'said'),
    [
        ('timm://repvit_m1', '(timm, licence Apache-2.0)'),
        (
            'https://github.com/THU-MIG/RepViT/releases/download/v1.0/repvit_m0_9_distill_300e.pth',
            "(THU-MIG/RepViT, code's licence Apache-2.0)",
        ),
        ('https://site.example/mine.pth', None),
    ],
)
def test_loading_says_whose_weights_they_are(network, address, said, mm_log):
    known = find_weights(address)
    model = RepViT('m0_9', init_cfg={'type': 'Pretrained', 'checkpoint': address})
    content = save({name: value.contiguous() for name, value in model.state_dict().items()})
    network.answers[known.url if known else address] = content
    model.init_weights()
    (line,) = [line for line in mm_log if ' tensors from the ' in line]
    assert line.endswith(f'layout of {address} {said}' if said else f'layout of {address}')
