"""EfficientViT of Microsoft against its authors' code and timm's."""

import copy

import pytest
import torch
from helpers import golden_files
from helpers.variants import largest_deviation, randomise_norms
from torch.nn import functional as F

from lightvit_mm.backbones import EfficientViT
from lightvit_mm.backbones.efficientvit import EfficientViTBlock, LocalWindowAttention
from lightvit_mm.layers.fold import fold_modules


def loaded(golden, deploy, **options):
    arch = golden['name'].rsplit('_', 1)[-1]
    model = EfficientViT(arch=arch, deploy=deploy, **options).eval()
    model.load_state_dict(golden_files.weights(golden))
    return model


def check(outputs, run):
    for output, expected in zip(outputs, run['outputs'], strict=True):
        assert golden_files.deviation(output, expected) < 1e-4


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('arch', ['m0', 'm4'])
@torch.no_grad()
def test_golden_outputs(arch, deploy):
    golden = golden_files.read(f'efficientvit_{arch}')
    model = loaded(golden, deploy)
    for run in golden['runs'][:2]:
        check(model(golden_files.image(run['input'])), run)


@pytest.mark.parametrize('deploy', [False, True])
@torch.no_grad()
def test_golden_outputs_of_timm(deploy):
    golden = golden_files.read('timm_efficientvit_m4')
    (run,) = golden['runs']
    x = golden_files.image(run['input'])
    check(loaded(golden, deploy, window_sizes=(7, 7, 4))(x), run)
    # In windows of 7, the last level is another one.
    check(loaded(golden, deploy)(x)[:2], {'outputs': run['outputs'][:2]})


# Parameters of the official code with its 1000-class head in windows of 7, 7, 4 at 224 pixels.
@pytest.mark.parametrize(
    ('arch', 'classifier_parameters', 'backbone_parameters'),
    [
        ('m0', 2_349_436, 2_156_448),
        ('m1', 2_980_560, 2_787_473),
        ('m2', 4_187_554, 3_962_304),
        ('m3', 6_900_722, 6_579_478),
        ('m4', 8_804_228, 8_418_856),
        ('m5', 12_473_772, 12_088_532),
    ],
)
def test_parameter_count(arch, classifier_parameters, backbone_parameters):
    def count(model):
        return sum(p.numel() for p in model.parameters())

    settings = EfficientViT.arch_settings[arch]
    channels = settings['embed_dims'][-1]
    head = 2 * channels + 1000 * channels + 1000
    assert count(EfficientViT(arch=arch, window_sizes=(7, 7, 4))) == classifier_parameters - head
    model = EfficientViT(arch=arch)
    assert count(model) == backbone_parameters
    assert model.out_strides == (16, 32, 64)
    assert model.out_channels == settings['embed_dims']


def test_nothing_is_frozen_by_default():
    assert all(p.requires_grad for p in EfficientViT(arch='m0').parameters())


def test_query_kernels():
    """M0's are those of the released weights, not of the authors' detection file."""

    def kernels(arch, stage):
        attention = EfficientViT(arch=arch).stages[stage].blocks[0].mixer.attn
        return [dw.conv.kernel_size[0] for dw in attention.dws]

    assert kernels('m0', 0) == [5, 5, 5, 5]
    assert kernels('m1', 0) == [7, 5]
    assert kernels('m4', 2) == [7, 5, 3, 3]


def windows_one_by_one(mixer, x):
    """The attention with explicit windows, scores and padding."""
    size, attn = mixer.window_size, mixer.attn
    height, width = x.shape[2:]
    padded = F.pad(x, (0, -width % size, 0, -height % size))
    out = torch.zeros_like(padded)
    places = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    dy, dx = (places[:, None] - places).abs().unbind(-1)
    biases = attn.attention_biases.table[:, dy * size + dx]
    for top in range(0, padded.shape[2], size):
        for left in range(0, padded.shape[3], size):
            cell = (..., slice(top, top + size), slice(left, left + size))
            heads, previous = [], 0
            for i, share in enumerate(padded[cell].chunk(len(attn.qkvs), 1)):
                previous = previous + share
                query, key, value = attn.qkvs[i](previous).split((16, 16, share.shape[1]), 1)
                query, key, value = attn.dws[i](query).flatten(2), key.flatten(2), value.flatten(2)
                scores = query.transpose(1, 2) @ key / 4 + biases[i]
                previous = (value @ scores.softmax(-1).transpose(1, 2)).view_as(share)
                heads.append(previous)
            out[cell] = attn.proj(torch.cat(heads, 1).relu())
    return x + out[..., :height, :width]


def random_mixer():
    mixer = LocalWindowAttention(24, (7, 5, 3), 7, {'type': 'BN'}, drop_path=0.0).eval()
    randomise_norms(mixer)
    torch.nn.init.normal_(mixer.attn.attention_biases.table)
    return mixer


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('size', [(7, 7), (14, 21), (8, 7), (16, 11), (5, 5), (1, 1), (3, 9)])
@torch.no_grad()
def test_windows(size, deploy):
    """Any map is padded to whole windows with zeros that attention sees."""
    mixer = random_mixer()
    x = torch.randn(2, 24, *size)
    expected = windows_one_by_one(mixer, x)
    if deploy:
        fold_modules(mixer)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=layout)
        torch.testing.assert_close(mixer(given), expected, rtol=1e-4, atol=1e-5)
        assert given.equal(x)  # activations work in place, but not on the input


@pytest.mark.parametrize('deploy', [False, True])
@torch.no_grad()
def test_weights_loaded_in_eval_mode_are_used(deploy):
    golden = golden_files.read('efficientvit_m0')
    weights = golden_files.weights(golden)
    model = EfficientViT(arch='m0', deploy=deploy).eval()
    x = torch.randn(1, 3, 128, 128)
    model(x)
    outputs = []
    for factor in (1, 30):
        tables = {k: factor * v for k, v in weights.items() if 'attention_biases' in k}
        model.load_state_dict({**weights, **tables})
        outputs.append(model(x))
        fresh = EfficientViT(arch='m0', deploy=deploy)
        fresh.load_state_dict({**weights, **tables})
        assert largest_deviation(outputs[-1], fresh.eval()(x)) == 0
    assert largest_deviation(*outputs) > 1e-3


@pytest.mark.parametrize('training', [False, True])
def test_activations_in_place_change_no_gradient(training):
    model = EfficientViT(arch='m0').train(training)
    randomise_norms(model)
    reference = copy.deepcopy(model)
    activations = [m for m in reference.modules() if isinstance(m, torch.nn.ReLU)]
    assert any(activation.inplace for activation in activations)
    for activation in activations:
        activation.inplace = False
    x = torch.randn(2, 3, 128, 128)
    for network in (model, reference):
        sum(output.square().mean() for output in network(x)).backward()
    for (name, p), expected in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p.grad, expected.grad, rtol=0, atol=0, msg=name)


def test_blocks_begin_as_the_identity():
    block = EfficientViTBlock(32, (5, 5), 7, {'type': 'BN'}, drop_path=0.0)
    x = torch.randn(2, 32, 9, 9)
    assert torch.equal(block(x), x)


def test_the_biases_have_the_name_that_the_recipe_spares_from_decay():
    for deploy in (False, True):
        model = EfficientViT(arch='m4', deploy=deploy)
        spared = [p for n, p in model.named_parameters() if 'attention_biases' in n]
        assert len(spared) == sum(model.arch['depths'])
        assert all(len(p) == 4 for p in spared)


@pytest.mark.parametrize(
    'change', [{'num_heads': (4, 4, 5)}, {'kernel_sizes': (7, 5)}, {'num_heads': (8, 4, 4)}]
)
def test_heads_of_a_custom_arch(change):
    with pytest.raises(ValueError, match='heads'):
        EfficientViT(arch={**EfficientViT.arch_settings['m4'], **change})


@torch.no_grad()
def test_the_level_of_the_stem_comes_before_the_others():
    torch.manual_seed(0)
    plain = EfficientViT(arch='m0', out_indices=(0, 2)).eval()
    finer = EfficientViT(arch='m0', out_indices=(0, 2), stem_level=True).eval()
    finer.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 75, 130)
    level, *others = finer(x)
    assert finer.out_strides == (8, 16, 64)
    assert finer.out_channels == (32, 64, 192)
    assert level.shape == (1, 32, 10, 17)
    assert torch.equal(level, finer.stem[2](finer.stem[1](finer.stem[0](x))))
    assert all(map(torch.equal, others, plain(x)))
