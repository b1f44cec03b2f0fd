"""Classifiers with published heads: the same logits, whatever layout the weights come in."""

import re

import pytest
import torch
from helpers import golden_files, official_repvit, official_vit, timm_reference
from helpers.variants import largest_deviation
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint
from safetensors.torch import save_file

from lightvit_mm.backbones import RepViT
from lightvit_mm.classification import ImageClassifier

LAST = {'out_indices': (3,)}
BN = {'norm': {'type': 'BN1d'}}
KINDS = {
    'RepViT': (LAST, BN),
    'EfficientViT': ({'out_indices': (2,), 'window_sizes': (7, 7, 4)}, BN),
    'EdgeViT': ({**LAST, 'out_norm': True}, {}),
    'MobileViT': ({**LAST, 'expand_last': True}, {'dropout': 0.1}),
    'ShuffleSwin': (
        {**LAST, 'shuffle': False, 'out_norm': False},
        {'norm': {'type': 'LN', 'eps': 1e-5}},
    ),
    'ShuffleDeiT': (
        {'class_token': True, 'shuffle': False},
        {'norm': {'type': 'LN', 'eps': 1e-6}},
    ),
    'ShuffleT2TViT': ({'class_token': True}, {'norm': {'type': 'LN', 'eps': 1e-5}}),
}


# Of the linear layer, in every release.
LAST_BIAS = r'^(head|classifier)\b.*(?<!bn)\.bias$'


def classifier(
    family: str, arch: str | dict, distilled: bool = False, **options
) -> ImageClassifier:
    backbone, head = KINDS[family]
    head = {**head, 'distilled': distilled}
    config = {
        'type': 'ImageClassifier',
        'backbone': {'type': family, 'arch': arch, **backbone, **options},
        'head': {'type': 'ClassifierHead', 'num_classes': 1000, **head},
    }
    return MODELS.build(config).eval()


@torch.no_grad()
def logits(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(x)


@pytest.mark.parametrize('name', ['efficientvit_m0', 'efficientvit_m4', 'easycv_edgevit_xxs'])
def test_golden_logits(name, tmp_path, mm_log):
    golden = golden_files.read(name)
    weights, run = golden_files.weights(golden), golden['runs'][2]
    if name.startswith('efficientvit'):
        # The authors' code reads the biases when eval() is called. These logits come from weights
        # loaded after that, and so from biases of 0.
        weights |= {k: torch.zeros_like(v) for k, v in weights.items() if 'attention_biases' in k}
    family = 'EfficientViT' if name.startswith('efficientvit') else 'EdgeViT'
    model = classifier(family, golden['name'].split('_')[-1])
    file = tmp_path / 'weights.pth'
    torch.save(weights, file)
    load_checkpoint(model, str(file), strict=True)
    outputs = logits(model, golden_files.image(run['input']))
    assert golden_files.deviation(outputs, run['outputs'][0]) < 1e-4
    if family == 'EdgeViT':
        assert any('tensors from the EasyCV layout' in line for line in mm_log)


@pytest.mark.parametrize(
    ('family', 'arch', 'name', 'size'),
    [
        ('RepViT', 'm0_9', 'repvit_m0_9', 64),
        ('RepViT', 'm1', 'repvit_m1', 64),
        ('EfficientViT', 'm0', 'efficientvit_m0', 224),
        ('MobileViT', 'xxs', 'mobilevit_xxs', 64),
        ('ShuffleSwin', 'tiny', 'swin_tiny_patch4_window7_224', 224),
        ('ShuffleDeiT', 'tiny', 'deit_tiny_patch16_224', 224),
    ],
)
def test_same_logits_as_timm(family, arch, name, size, tmp_path):
    theirs = timm_reference.import_timm().create_model(name).eval()
    timm_reference.randomise(theirs)
    file = tmp_path / 'model.safetensors'
    save_file(theirs.state_dict(), file)
    x = torch.randn(1, 3, size, size)
    expected = logits(theirs, x)
    ours = classifier(family, arch)
    load_checkpoint(ours, str(file), strict=True)
    assert largest_deviation([logits(ours, x)], [expected]) < 1e-4
    if family == 'RepViT':
        # Two heads; the one of the model above is both of them folded.
        ours = classifier(family, arch, distilled=True)
        load_checkpoint(ours, str(file), strict=True)
        assert largest_deviation([logits(ours, x)], [expected]) < 1e-4
        # Folded by timm, as in the authors' fused files.
        theirs.head = theirs.head.fuse()
        save_file(theirs.state_dict(), file)
        ours = classifier(family, arch)
        load_checkpoint(ours, str(file), strict=True)
        assert largest_deviation([logits(ours, x)], [expected]) < 1e-4


@pytest.mark.parametrize('deploy', [False, True])
def test_same_logits_as_the_authors_repvit_and_its_fused_file(deploy):
    weights = official_repvit.weights(**RepViT.arch_settings['m0_6'])
    x = torch.randn(1, 3, 64, 64)
    expected = official_repvit.logits(weights, x)
    model = classifier('RepViT', 'm0_6', deploy=deploy)
    model.load_state_dict(official_repvit.fused(weights) if deploy else weights)
    assert largest_deviation([logits(model, x)], [expected]) < 1e-4


def test_same_logits_from_the_layout_of_t2t_vit():
    # timm has no T2T-ViT.
    arch = {'attend_dims': 24, 'depths': (1, 2, 1, 1), 'num_heads': 2}
    reference = classifier('ShuffleT2TViT', arch, shuffle=False)
    timm_reference.randomise(reference)
    head = {'norm': reference.head.norm, 'head': reference.head.fc}
    weights = official_vit.weights(reference.backbone)
    weights |= {f'{n}.{k}': v for n, layer in head.items() for k, v in layer.state_dict().items()}
    model = classifier('ShuffleT2TViT', arch, shuffle=False)
    model.load_state_dict(weights)
    x = torch.randn(1, 3, 64, 64)
    token = reference.backbone(x)[-1]
    assert token.shape == (1, 24, 1, 1)
    expected = reference.head.fc(reference.head.norm(token.flatten(1)))
    assert largest_deviation([logits(model, x)], [expected]) < 1e-4


@pytest.mark.parametrize(
    ('family', 'name'),
    [
        ('EdgeViT', 'edgevit_xxs'),
        ('MobileViT', 'mobilevit_xxs'),
        ('MobileViT', 'mmpretrain_mobilevit_s'),
        ('MobileViT', 'timm_mobilevit_s'),
        ('RepViT', 'repvit_m0_9'),
        ('RepViT', 'timm_repvit_m3'),
        ('EfficientViT', 'timm_efficientvit_m4'),
        ('ShuffleSwin', 'shuffle_swin_extra_tiny'),
        ('ShuffleDeiT', 'timm_deit_tiny'),
    ],
)
def test_every_published_layout_has_a_head(family, name, tmp_path):
    golden = golden_files.read(name)
    weights = golden_files.weights(golden)
    arch = golden['name'].split(f'{"deit" if "deit" in name else family.lower()}_')[-1]
    options = {}
    if name.startswith('shuffle_swin'):
        arch, options = 'extra_tiny', {'shuffle': True, 'rescale': 'fixed'}
    model = classifier(family, arch, **options)
    file = tmp_path / 'weights.pth'
    torch.save(weights, file)
    load_checkpoint(model, str(file), strict=True)
    (bias,) = (v for k, v in weights.items() if re.search(LAST_BIAS, k) and '_dist' not in k)
    if family == 'RepViT':  # two heads, folded
        assert not torch.equal(model.head.fc.bias, bias)
    else:
        assert torch.equal(model.head.fc.bias, bias)


@pytest.mark.parametrize('family', KINDS)
def test_its_backbone_starts_a_detector(family, tmp_path):
    arch = next(iter(MODELS.get(family).arch_settings))
    model = classifier(family, arch)
    timm_reference.randomise(model)
    file = tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, file)
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(file)}
    options = {key: KINDS[family][0][key] for key in ('shuffle',) if key in KINDS[family][0]}
    backbone = MODELS.build({'type': family, 'arch': arch, 'init_cfg': init_cfg, **options})
    backbone.init_weights()
    trained, taken = model.backbone.state_dict(), backbone.state_dict()
    shared = [name for name in trained if name in taken]
    assert len(shared) > 0.95 * len(trained)
    for name in shared:
        if trained[name].shape == taken[name].shape:
            assert torch.equal(trained[name], taken[name]), name
        else:  # the windows of the last stage
            assert name.endswith('attention_biases.table')
            assert taken[name].shape[1] == 49
            corners = [0, 6, 42, 48]
            assert taken[name][:, corners].abs().sum() > 0


def test_a_class_token_has_no_levels():
    with pytest.raises(ValueError, match='out_indices has no effect'):
        MODELS.build({'type': 'ShuffleDeiT', 'arch': 'tiny', 'class_token': True, **LAST})
    for window_sizes in ((7, 7), (7, 7, 0)):
        with pytest.raises(ValueError, match='three sides'):
            MODELS.build({'type': 'EfficientViT', 'arch': 'm0', 'window_sizes': window_sizes})
