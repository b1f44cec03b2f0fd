"""Backbones and weights by name."""

import copy

import pytest
import torch
from helpers import golden_files
from helpers.variants import largest_deviation
from safetensors.torch import save_file

import lightvit_mm
from lightvit_mm.backbones import RepViT
from lightvit_mm.backbones.families import FAMILIES
from lightvit_mm.checkpoints import CheckpointError, WeightsError
from lightvit_mm.checkpoints.weights import WEIGHTS
from lightvit_mm.errors import UserError


def test_every_variant_is_listed_with_what_it_returns():
    listed = {arch.name: arch for arch in lightvit_mm.list_archs()}
    assert len(listed) == sum(len(f.backbone.arch_settings) for f in FAMILIES.values()) == 27
    for name in ('edgevit_xxs', 'efficientvit_m0', 'shuffle_t2t_vit_7'):
        arch = listed[name]
        model = lightvit_mm.create_backbone(name).eval()
        assert (arch.type, arch.arch) == (type(model).__name__, model.arch_name)
        with torch.no_grad():
            levels = model(torch.zeros(1, 3, 64, 128))
        assert arch.channels == tuple(level.shape[1] for level in levels)
        assert arch.strides == tuple(128 // level.shape[3] for level in levels)
        assert arch.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_a_pattern():
    assert [arch.name for arch in lightvit_mm.list_archs('edgevit*')] == [
        'edgevit_xxs',
        'edgevit_xs',
        'edgevit_s',
    ]
    assert [weights.name for weights in lightvit_mm.list_weights('mobilevit_s')] == [
        'mobilevit_s.cvnets',
        'mobilevit_s.mmpretrain',
        'mobilevit_s.timm_cvnets_in1k',
    ]
    assert [weights.name for weights in lightvit_mm.list_weights('repvit_m0_9.*450e*')] == [
        'repvit_m0_9.distill_450e',
        'repvit_m0_9.timm_dist_450e_in1k',
    ]
    assert lightvit_mm.list_weights() == list(WEIGHTS)
    assert lightvit_mm.list_weights('shuffle_*') == [], 'none were published'


@pytest.mark.parametrize(
    'call',
    [
        lightvit_mm.list_archs,
        lightvit_mm.list_weights,
        lightvit_mm.create_backbone,
        lambda name: lightvit_mm.create_backbone(name, pretrained=True),
    ],
)
def test_an_unknown_name_gets_near_ones(call):
    with pytest.raises(UserError, match=r"'edgevit_m'; there are.*edgevit_s"):
        call('edgevit_m')


def served(network, address, state_dict, tmp_path):
    """The address answers with weights."""
    save_file({k: v.contiguous() for k, v in state_dict.items()}, tmp_path / 'file')
    network.answers[address] = (tmp_path / 'file').read_bytes()


@pytest.mark.parametrize(
    ('name', 'file'),
    [
        ('repvit_m0_9', 'repvit_m0_9_distill_300e.pth'),
        ('repvit_m0_9.distill_450e', 'repvit_m0_9_distill_450e.pth'),
    ],
)
def test_published_weights_are_fetched_and_loaded(network, tmp_path, name, file):
    source = RepViT('m0_9').eval()
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    address = f'https://github.com/THU-MIG/RepViT/releases/download/v1.0/{file}'
    served(network, address, source.state_dict(), tmp_path)
    model = lightvit_mm.create_backbone(name, pretrained=True, out_indices=(1, 3), deploy=True)
    assert network.asked == [address]
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = [level for i, level in enumerate(source(image)) if i in (1, 3)]
        assert largest_deviation(model.eval()(image), expected) < 1e-4


def test_third_party_weights_of_edgevit(network, tmp_path):
    golden = golden_files.read('easycv_edgevit_xxs')
    (record,) = lightvit_mm.list_weights('edgevit_xxs')
    served(network, record.address, golden_files.weights(golden), tmp_path)
    model = lightvit_mm.create_backbone('edgevit_xxs', pretrained=True).eval()
    run = golden['runs'][0]
    with torch.no_grad():
        levels = model(golden_files.image(run['input']))
    for level, expected in zip(levels, run['outputs'], strict=True):
        assert golden_files.deviation(level, expected) < 1e-4


def test_weights_of_ones_own(tmp_path):
    source = lightvit_mm.create_backbone('edgevit_xxs')
    torch.save(source.state_dict(), tmp_path / 'mine.pth')
    model = lightvit_mm.create_backbone('edgevit_xxs', pretrained=str(tmp_path / 'mine.pth'))
    before = copy.deepcopy(source.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(WeightsError, match=r"It fits arch='xxs'"):
        lightvit_mm.create_backbone('edgevit_s', pretrained=str(tmp_path / 'mine.pth'))


def test_without_a_network_or_published_weights(network):
    with pytest.raises(CheckpointError, match=r'edges/.*could not be fetched.*give its path'):
        lightvit_mm.create_backbone('edgevit_s', pretrained=True)
    with pytest.raises(UserError, match=r'no weights of shuffle_swin_tiny were.*pretrained=FILE'):
        lightvit_mm.create_backbone('shuffle_swin_tiny', pretrained=True)
    with pytest.raises(UserError, match=r"no weights are called 'edgevit_s\.paper'; .*s\.easycv"):
        lightvit_mm.create_backbone('edgevit_s.paper')
    with pytest.raises(TypeError, match="EdgeViT has no argument 'levels'"):
        lightvit_mm.create_backbone('edgevit_s', levels=3)
