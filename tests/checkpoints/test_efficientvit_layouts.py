"""Weights of EfficientViT as its authors and timm release them."""

import pytest
import torch
from helpers import golden_files
from helpers.repository import REPOSITORY
from helpers.variants import largest_deviation
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from lightvit_mm.backbones import EfficientViT
from lightvit_mm.checkpoints import WeightsError
from lightvit_mm.registry import MODELS

TABLE = 'stages.2.blocks.0.mixer.attn.attention_biases.table'
OFFICIAL_TABLE = 'blocks3.3.mixer.m.attn.attention_biases'


@pytest.fixture(scope='module')
def official() -> dict[str, torch.Tensor]:
    return golden_files.weights(golden_files.read('efficientvit_m0'))


@pytest.fixture(scope='module')
def reference(official) -> EfficientViT:
    model = EfficientViT(arch='m0').eval()
    model.load_state_dict(official)
    return model


def assert_same(model: torch.nn.Module, reference: torch.nn.Module) -> None:
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert largest_deviation(model.eval()(x), reference(x)) == 0


WRAPPERS = {
    'bare': lambda weights: weights,
    'model': lambda weights: {'model': weights, 'epoch': 299},
    'module.': lambda weights: {f'module.{k}': v for k, v in weights.items()},
    'detector': lambda weights: {
        'state_dict': {
            **{f'backbone.{k}': v for k, v in weights.items() if not k.startswith('head.')},
            'neck.extra_trans_convs.0.conv.weight': torch.ones(1),
        },
        'meta': {},
    },
}


@pytest.mark.parametrize('wrap', WRAPPERS.values(), ids=WRAPPERS)
def test_official_files(tmp_path, official, reference, mm_log, wrap):
    file = tmp_path / 'weights.pth'
    torch.save(wrap(official), file)
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(file)}
    model = EfficientViT(arch='m0', init_cfg=init_cfg)
    model.init_weights()
    assert_same(model, reference)
    assert any(f'686/686 tensors from the official layout of {file}' in line for line in mm_log)


def test_distilled_classifier_is_left_out(official, reference):
    head = {f'head_dist.{k[5:]}': v for k, v in official.items() if k.startswith('head.')}
    model = EfficientViT(arch='m0')
    model.load_state_dict({**official, **head})
    assert_same(model, reference)


def test_fewer_stages(official, reference):
    model = EfficientViT(arch='m0', out_indices=(0, 1)).eval()
    model.load_state_dict(official)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert largest_deviation(model(x), reference(x)[:2]) == 0


def test_a_released_detector(tmp_path):
    """By load_from, names of the neck included, into a detector of mmdet 3."""
    config = Config.fromfile(REPOSITORY / 'configs/_base_/retinanet.py')
    neck = {
        '_delete_': True,
        'type': 'EfficientViTFPN',
        'in_channels': [128, 256, 384],
        'out_channels': 256,
        'num_outs': 5,
        'add_extra_convs': 'on_input',
        'num_extra_trans_convs': 1,
    }
    config.merge_from_dict(
        {'model.backbone': {'type': 'EfficientViT', 'arch': 'm4'}, 'model.neck': neck}
    )
    detector = MODELS.build({**config.model, '_scope_': 'mmdet'})

    backbone = golden_files.weights(golden_files.read('efficientvit_m4'))
    tables = {k: torch.randn(4, 49) for k in backbone if k.endswith('attention_biases')}
    backbone = {k: v for k, v in {**backbone, **tables}.items() if not k.startswith('head.')}
    others = {
        k: torch.randn_like(v)
        for k, v in detector.state_dict().items()
        if not k.startswith('backbone.')
    }
    released = {f'backbone.{k}': v for k, v in backbone.items()} | others
    assert released['neck.extra_trans_convs.0.conv.weight'].shape == (256, 256, 2, 2)
    file = tmp_path / 'retinanet.pth'
    torch.save({'state_dict': released, 'meta': {}}, file)
    load_checkpoint(detector, str(file), strict=True)
    assert torch.equal(detector.backbone.state_dict()[TABLE], tables[OFFICIAL_TABLE])
    for name, value in others.items():
        assert torch.equal(detector.state_dict()[name], value)


def test_tables_are_resized_to_the_window(official, reference):
    """4x4 to 7x7 in the last stage; pixel centres and the cubic kernel are torch's."""
    old, new = official[OFFICIAL_TABLE], reference.state_dict()[TABLE]
    assert old.shape == (4, 16)
    assert new.shape == (4, 49)
    # The centre of 7 falls between the two middle ones of 4, where the kernel (a = -0.75) is
    # -3/32, 19/32, 19/32, -3/32.
    kernel = torch.tensor([-3, 19, 19, -3]) / 32
    centre = torch.einsum('hyx,y,x->h', old.view(4, 4, 4), kernel, kernel)
    torch.testing.assert_close(new[:, 24], centre)
    same = 'stages.1.blocks.1.mixer.attn.attention_biases.table'
    official_name = 'blocks2.4.mixer.m.attn.attention_biases'
    assert torch.equal(reference.state_dict()[same], official[official_name])


def test_tables_in_half_precision(official, reference):
    model = EfficientViT(arch='m0')
    model.load_state_dict(
        {k: v.half() if 'attention_biases' in k else v for k, v in official.items()}
    )
    torch.testing.assert_close(
        model.state_dict()[TABLE], reference.state_dict()[TABLE], rtol=1e-2, atol=1e-3
    )


def test_index_buffers_are_neither_needed_nor_kept(official, reference):
    assert any(name.endswith('attention_bias_idxs') for name in official)
    assert not [name for name in reference.state_dict() if 'ind' in name or 'idx' in name]
    model = EfficientViT(arch='m0')
    model.load_state_dict({k: v for k, v in official.items() if not k.endswith('_idxs')})
    assert_same(model, reference)


@pytest.mark.parametrize('deploy', [False, True])
def test_kernels_stored_as_matrices(official, reference, deploy):
    old = {
        k: v[:, :, 0, 0] if v.ndim == 4 and v.shape[2:] == (1, 1) else v
        for k, v in official.items()
    }
    assert sum(v.ndim == 2 and k.endswith('c.weight') for k, v in old.items()) > 50
    model = EfficientViT(arch='m0', deploy=deploy)
    model.load_state_dict(old)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert largest_deviation(model.eval()(x), reference(x)) < 1e-4


def test_kernels_of_the_detection_file_are_refused(official):
    """Its m0 has query kernels 7, 5, 3, 3; the authors' code then only warns."""
    wrong = dict(official)
    for name in official:
        if name.endswith('dws.0.c.weight'):
            wrong[name] = torch.zeros(16, 1, 7, 7)
    with pytest.raises(WeightsError, match=r'dws\.0\.c\.weight: \(16, 1, 7, 7\) in the file'):
        EfficientViT(arch='m0').load_state_dict(wrong)


def test_tables_that_fit_no_window_are_refused(official):
    wrong = {**official, OFFICIAL_TABLE: torch.zeros(4, 15)}
    with pytest.raises(WeightsError, match=r'attention_biases: \(4, 15\) in the file, \(4, 49\)'):
        EfficientViT(arch='m0').load_state_dict(wrong)


def test_another_arch_is_refused(official):
    with pytest.raises(WeightsError, match='official layout'):
        EfficientViT(arch='m4').load_state_dict(official)


def test_timm_layout(mm_log):
    golden = golden_files.read('timm_efficientvit_m4')
    EfficientViT(arch='m4').load_state_dict(golden_files.weights(golden))
    assert any('686/686 tensors from the timm layout' in line for line in mm_log)
