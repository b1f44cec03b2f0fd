"""The outputs of every form of a backbone equal those of the backbone."""

import pytest
import torch
from helpers.timm_reference import import_timm
from helpers.variants import largest_deviation, randomise_norms
from torch import nn

from lightvit_mm.backbones import RepViT
from lightvit_mm.benchmark.forms import OURS, eager_form, exported_forms, file_form, timm_models
from lightvit_mm.errors import UserError
from lightvit_mm.export.exporting import export_subject
from lightvit_mm.export.subject import Subject


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
    form = eager_form(OURS, deployed, image, 'fp32', train=False)
    exact, *faster = exported_forms(form, [runtime], dtypes=('fp32', 'bf16'))
    assert exact.name == f'lightvit_mm fp32 {runtime}'
    assert exact.first_call > 0
    assert exact.exported and not form.exported
    outputs = [torch.from_numpy(level) for level in exact.call().values()]
    assert largest_deviation(outputs, deployed(image)) < 1e-4
    in_bf16 = ['lightvit_mm bf16 openvino'] if runtime == 'openvino' else []
    assert [form.name for form in faster] == in_bf16


def test_a_file(image, tmp_path):
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason='export needs it: pip install -e ".[onnx]"')
    module, file = nn.Conv2d(3, 1, 1), tmp_path / 'model.onnx'
    subject = Subject(module, ['level0'], (64, 32), metadata={'precision': 'int8'})
    export_subject(subject, file)
    form = file_form(eager_form(OURS, module, image, 'fp32', train=False), str(file))
    assert form.name == 'lightvit_mm int8 model.onnx'
    assert form.exported
    assert largest_deviation([torch.from_numpy(form.call()['level0'])], [module(image)]) < 1e-4
    with pytest.raises(UserError, match='its input is 64x32, and the table is of 32x64'):
        file_form(eager_form(OURS, module, image.mT, 'fp32', train=False), str(file))


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
