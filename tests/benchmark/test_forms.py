"""The outputs of every form of a backbone equal those of the backbone."""

import pytest
import torch
from helpers.timm_reference import import_timm
from helpers.variants import largest_deviation, randomise_norms

from lightvit_mm.backbones import RepViT
from lightvit_mm.benchmark.forms import OURS, eager_form, exported_forms, timm_models


@pytest.fixture
def deployed():
    model = RepViT(arch='m0_6', out_indices=(0, 1)).eval()
    randomise_norms(model)
    return model.switch_to_deploy()


@pytest.fixture
def image():
    return torch.randn(1, 3, 64, 32).to(memory_format=torch.channels_last)


def test_inference(deployed, image):
    form = eager_form(OURS, deployed, image, 'fp32', train=False)
    assert form.name == 'lightvit_mm fp32'
    outputs = form.call()
    assert outputs[0].is_inference()
    assert largest_deviation(outputs, deployed(image)) < 1e-5
    half = eager_form(OURS, deployed, image, 'bf16', train=False).call()
    assert half[0].dtype == torch.bfloat16
    assert 0 < largest_deviation([level.float() for level in half], outputs) < 0.5


def test_training_step(image):
    model = RepViT(arch='m0_6', out_indices=(0, 1))
    gradients = {}
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda p, name=name: gradients.__setitem__(name, p.grad.norm().item())
        )
    eager_form(OURS, model, image, 'fp32', train=True).call()
    assert gradients.keys() == dict(model.named_parameters()).keys()
    assert gradients['stem.conv1.conv.weight'] > 0
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_exported(deployed, image, runtime):
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason='export needs it: pip install -e ".[onnx]"')
    pytest.importorskip(runtime, reason=f'not installed: pip install {runtime}')
    (form,) = exported_forms(eager_form(OURS, deployed, image, 'fp32', train=False), [runtime])
    assert form.name == f'lightvit_mm fp32 {runtime}'
    assert form.first_call > 0
    outputs = [torch.from_numpy(level) for level in form.call().values()]
    assert largest_deviation(outputs, deployed(image)) < 1e-4


def test_no_runtime_no_export(deployed, image):
    assert exported_forms(eager_form(OURS, deployed, image, 'fp32', train=False), []) == []


def test_timm_is_fused_for_inference_only():
    import_timm()
    models = timm_models('efficientvit_m0', train=False)
    assert list(models) == ['', 'channels_last']
    for model in models.values():
        assert not model.training
        assert not any('BatchNorm' in type(module).__name__ for module in model.modules())
    image = torch.randn(1, 3, 112, 112)
    plain, turned = (model(image) for model in models.values())
    assert [level.shape[1] for level in plain] == [64, 128, 192]
    assert largest_deviation(plain, turned) < 1e-4
    trained = timm_models('efficientvit_m0', train=True)['']
    assert trained.training
    assert any('BatchNorm' in type(module).__name__ for module in trained.modules())


def test_levels_of_timm_are_ours():
    import_timm()
    model = timm_models('mobilevit_xxs', train=False)['']
    assert model.feature_info.reduction() == [4, 8, 16, 32]


def test_timm_without_the_model():
    import_timm()
    assert timm_models('edgevit_s', train=False) == {}
