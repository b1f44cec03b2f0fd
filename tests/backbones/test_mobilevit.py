"""MobileViT against the code of its authors, timm and mmpretrain."""

import copy

import pytest
import torch
from helpers import golden_files
from helpers.variants import LargestTensor, largest_deviation, randomise_norms
from torch.nn import functional as F

from lightvit_mm.backbones import MobileViT
from lightvit_mm.backbones.mobilevit import (
    MobileViTBlock,
    SelfAttention,
    TransformerLayer,
    fold,
    unfold,
)
from lightvit_mm.layers import DropPath

ARCHS = list(MobileViT.arch_settings)


def from_golden(golden: dict, arch: str, **arguments) -> MobileViT:
    model = MobileViT(arch=arch, **arguments).eval()
    model.load_state_dict(golden_files.weights(golden))
    return model


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('arch', ['xxs', 's'])
def test_golden_outputs_of_apple(arch, deploy):
    golden = golden_files.read(f'mobilevit_{arch}')
    model = from_golden(golden, arch, deploy=deploy, expand_last=True)
    levels = {}
    model.stem.register_forward_hook(lambda *args: levels.update(stem=args[-1]))
    model.stages[-1].register_forward_hook(lambda *args: levels.update(last=args[-1]))
    for run in golden['runs']:
        with torch.no_grad():
            *outputs, expanded = model(golden_files.image(run['input']))
        outputs = [levels['stem'], *outputs, levels['last']]
        if 'what' in run:
            assert 'conv_1x1_exp' in run['what']
            outputs = [expanded]
        for output, expected in zip(outputs, run['outputs'], strict=True):
            assert golden_files.deviation(output, expected) < 1e-4


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('origin', ['timm', 'mmpretrain'])
def test_golden_outputs_of_ports(origin, deploy):
    golden = golden_files.read(f'{origin}_mobilevit_s')
    model = from_golden(golden, 's', deploy=deploy, expand_last=True)
    for run in golden['runs']:
        with torch.no_grad():
            outputs = model(golden_files.image(run['input']))
        # timm's first level, of stride 2, is our stem.
        for output, expected in zip(outputs, run['outputs'][-4:], strict=True):
            assert golden_files.deviation(output, expected) < 1e-4


# Parameters of the official code with its 1000-class head, less that head.
@pytest.mark.parametrize(
    ('arch', 'parameters', 'without_expansion'),
    [
        ('xxs', 1_272_024 - 321_000, 924_784),
        ('xs', 2_317_848 - 385_000, 1_895_216),
        ('s', 5_578_632 - 641_000, 4_833_952),
    ],
)
def test_parameter_count(arch, parameters, without_expansion):
    for model, count in [
        (MobileViT(arch=arch, expand_last=True), parameters),
        (MobileViT(arch=arch), without_expansion),
    ]:
        assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(
    ('arch', 'channels', 'expanded'),
    [
        ('xxs', (24, 48, 64, 80), 320),
        ('xs', (48, 64, 80, 96), 384),
        ('s', (64, 96, 128, 160), 640),
    ],
)
def test_expansion_is_an_option(arch, channels, expanded):
    plain = MobileViT(arch=arch).eval()
    assert plain.out_channels == channels
    model = MobileViT(arch=arch, expand_last=True).eval()
    randomise_norms(model)
    assert model.out_channels == (*channels[:3], expanded)
    plain.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        outputs, features = model(x), plain(x)
        assert tuple(o.shape[1] for o in outputs) == model.out_channels
        assert largest_deviation(outputs[:3], features[:3]) == 0
        assert largest_deviation([model.conv_1x1_exp(features[3])], outputs[3:]) == 0
    lower = MobileViT(arch=arch, expand_last=True, out_indices=(0, 1))
    assert lower.out_channels == channels[:2]
    assert not hasattr(lower, 'conv_1x1_exp')


def as_in_the_paper(block: MobileViTBlock, x: torch.Tensor) -> torch.Tensor:
    """The block in the order of figure 1b and of the official code, by torch's own unfold."""
    size = x.shape[-2:]
    full = [side + side % 2 for side in size]
    y = block.conv_1x1(block.conv_kxk(x))
    if list(size) != full:
        y = F.interpolate(y, full, mode='bilinear', align_corners=False)
    tokens = F.unfold(y, 2, stride=2).unflatten(1, (y.shape[1], 4)).permute(0, 2, 3, 1)
    tokens = block.norm(block.transformer(tokens))
    y = F.fold(tokens.permute(0, 3, 1, 2).flatten(1, 2), full, 2, stride=2)
    if list(size) != full:
        y = F.interpolate(y, tuple(size), mode='bilinear', align_corners=False)
    return block.conv_fusion(torch.cat((x, block.conv_proj(y)), 1))


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('size', [(8, 12), (7, 12), (8, 9), (5, 3), (1, 1)])
def test_block_equals_the_order_of_the_paper(size, training):
    block = MobileViT(arch='xxs').stages[1].blocks[0].train(training)
    randomise_norms(block)
    reference = copy.deepcopy(block)
    x = torch.randn(2, 48, *size)
    output, expected = block(x), as_in_the_paper(reference, x)
    assert largest_deviation([output], [expected]) < 1e-4
    for (name, a), b in zip(block.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=name)


def test_deploy_form_of_resized_maps():
    # The bias of the folded projection passes through the resizing, whose weights sum to one.
    block = MobileViT(arch='xxs').stages[1].blocks[0].eval()
    randomise_norms(block)
    x = torch.randn(2, 48, 7, 9)
    with torch.no_grad():
        expected = as_in_the_paper(block, x)
        for module in (block.conv_kxk, block.conv_proj, block.conv_fusion):
            module.fold()
        assert largest_deviation([block(x)], [expected]) < 1e-4


def test_unfolding_and_back():
    x = torch.arange(4 * 6.0).view(1, 4, 6, 1).expand(2, 4, 6, 3)
    tokens = unfold(x, 2)
    assert tokens.shape == (2, 4, 6, 3)
    assert tokens[0, 0, :, 0].tolist() == [0, 2, 4, 12, 14, 16]
    assert tokens[0, 3, :, 0].tolist() == [7, 9, 11, 19, 21, 23]
    assert torch.equal(fold(tokens, (4, 6), 2), x)


def test_nothing_is_resized_where_the_patch_divides(monkeypatch):
    sizes = []
    interpolate = F.interpolate

    def watched(x, size, **kwargs):
        assert all(type(side) is int for side in size)
        sizes.append(tuple(size))
        return interpolate(x, size, **kwargs)

    monkeypatch.setattr(F, 'interpolate', watched)
    model = MobileViT(arch='xxs').eval()
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 128))
        assert sizes == []
        model(torch.randn(1, 3, 96, 72))
    # Strides 8, 16, 32 give 12 x 9, 6 x 5 and 3 x 3.
    assert sizes == [(12, 10), (12, 9), (6, 6), (6, 5), (4, 4), (3, 3)]


@pytest.mark.parametrize('training', [False, True])
def test_attention_makes_no_score_matrix(training):
    block = MobileViT(arch='xxs').stages[1].blocks[0].train(training)
    x = torch.randn(1, 48, 64, 96)
    with LargestTensor() as largest, torch.set_grad_enabled(training):
        output = block(x)
        if training:
            output.sum().backward()
    tokens = 32 * 48
    assert 48 * 64 * 96 <= largest.elements < tokens**2


@pytest.mark.parametrize('arch', ARCHS)
def test_heads_suit_the_kernels_without_score_matrix(arch, monkeypatch):
    head_dims = []
    attend = F.scaled_dot_product_attention

    def watched(query, *args, **kwargs):
        head_dims.append(query.shape[-1])
        return attend(query, *args, **kwargs)

    monkeypatch.setattr(F, 'scaled_dot_product_attention', watched)
    with torch.no_grad():
        MobileViT(arch=arch).eval()(torch.randn(1, 3, 64, 64))
    dims = MobileViT.arch_settings[arch]['transformer_dims']
    expected = [-(-dim // 16) * 4 for dim, n in zip(dims, (2, 4, 3), strict=True) for _ in range(n)]
    assert head_dims == expected


@pytest.mark.parametrize('embed_dims', [120, 144])
def test_attention_equals_its_formula(embed_dims):
    attention = SelfAttention(embed_dims, num_heads=4)
    tokens = torch.randn(2, 4, 5, embed_dims)
    with torch.no_grad():
        query, key, value = (
            part.unflatten(-1, (4, embed_dims // 4)).transpose(2, 3)
            for part in attention.qkv(tokens).chunk(3, dim=-1)
        )
        scores = query @ key.transpose(-1, -2) / (embed_dims // 4) ** 0.5
        out = (scores.softmax(-1) @ value).transpose(2, 3).flatten(-2)
        torch.testing.assert_close(attention(tokens), attention.proj(out))


def test_patches_are_seen_by_place():
    # A pixel reaches, through the transformers, those at the same place of other patches alone.
    layers = MobileViT(arch='xxs').stages[1].blocks[0].transformer.eval()
    tokens = torch.randn(2, 4, 6, 64)
    changed = tokens.clone()
    changed[0, 1, 2] = torch.randn(64)
    with torch.no_grad():
        differs = (layers(changed) - layers(tokens)).abs().amax(-1) > 1e-6
    assert differs[0, 1].all()
    assert differs.sum() == 6


def test_stochastic_depth_drops_whole_images():
    layer = TransformerLayer(64, 4, 2, drop_rate=0.0, drop_path=0.5).train()
    tokens = torch.randn(32, 4, 6, 64)
    with torch.no_grad():
        kept = (layer(tokens) != tokens).any(-1).any(-1)
    assert torch.equal(kept.any(1), kept.all(1))
    assert 0 < kept.all(1).sum() < 32


def test_stochastic_depth_grows_and_spares_blocks_without_residual():
    model = MobileViT(arch='xxs', drop_path_rate=0.4)
    rates = {
        name: module.drop_prob
        for name, module in model.named_modules()
        if isinstance(module, DropPath) and module.drop_prob
    }
    assert rates['stages.0.blocks.1.drop_path'] == pytest.approx(0.1)
    assert rates['stages.3.blocks.0.transformer.2.drop_path'] == pytest.approx(0.4)
    assert len(rates) == 1 + 2 + 4 + 3
    assert not [name for name in rates if 'downsample' in name or name.startswith('stem')]


def test_dropout():
    x = torch.randn(2, 3, 64, 64)
    model = MobileViT(arch='xxs', drop_rate=0.1)
    with torch.no_grad():
        assert not torch.equal(model.train()(x)[1], model(x)[1])
        assert torch.equal(model.train()(x)[0], model(x)[0])
        assert torch.equal(model.eval()(x)[1], model(x)[1])
        plain = MobileViT(arch='xxs').train()
        assert torch.equal(plain(x)[-1], plain(x)[-1])


@pytest.mark.parametrize('arch', ARCHS)
def test_structure(arch):
    model = MobileViT(arch=arch)
    layers = [m for m in model.modules() if isinstance(m, TransformerLayer)]
    assert [len(stage.blocks) for stage in model.stages] == [2, 1, 1, 1]
    assert [len(s.blocks[0].transformer) for s in list(model.stages)[1:]] == [2, 4, 3]
    assert {layer.attn.num_heads for layer in layers} == {4}
    assert all(layer.mlp.fc1.out_features == 2 * layer.mlp.fc1.in_features for layer in layers)
    assert {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-5}
    # Only the first block of xxs keeps the number of channels.
    assert model.stem[1].residual is (arch == 'xxs')


def test_maps_stay_channels_last():
    model = MobileViT(arch='xxs').eval()
    with torch.no_grad():
        x = model.stem(torch.randn(2, 3, 96, 72))
        for stage in model.stages:
            x = stage(x)
            assert x.is_contiguous(memory_format=torch.channels_last)


def test_output_stride_of_segmentation():
    plain = MobileViT(arch='xxs').eval()
    model = MobileViT(arch='xxs', output_stride=16).eval()
    model.load_state_dict(plain.state_dict())
    assert model.out_strides == (4, 8, 16, 16)
    x = torch.randn(1, 3, 128, 96)
    with torch.no_grad():
        outputs, expected = model(x), plain(x)
        assert [output.shape[-2:] for output in outputs] == [(32, 24), (16, 12), (8, 6), (8, 6)]
        assert largest_deviation(outputs[:3], expected[:3]) == 0
        # The same convolutions at every place, of which a stride of 2 takes every other one.
        downsampled = plain.stages[3].downsample(expected[2])
        kept = model.stages[3].downsample(expected[2])
        assert largest_deviation([kept[..., ::2, ::2]], [downsampled]) < 1e-5
        deployed = model.switch_to_deploy()
        assert largest_deviation(deployed(x), outputs) < 1e-4
    with pytest.raises(ValueError, match='choose 16 or 32'):
        MobileViT(arch='xxs', output_stride=8)
