"""The hook compiles the backbone and nothing else, and leaves weights and outputs alone."""

import pytest
import torch
from helpers.variants import TINY, largest_deviation
from mmengine.runner import Runner

import lightvit_mm.backbones  # noqa: F401
from lightvit_mm.errors import UserError
from lightvit_mm.registry import HOOKS, MODELS


class Detector(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = MODELS.build({'type': 'RepViT', 'arch': 'm0_6', 'out_indices': (0,)})
        self.head = torch.nn.Conv2d(40, 1, 1)

    def forward(self, x, mode='tensor'):
        return self.head(self.backbone(x)[0])


def runner_of(model, tmp_path):
    return Runner(model, str(tmp_path), experiment_name=tmp_path.name, log_level='ERROR')


def test_the_backbone_alone(tmp_path, monkeypatch):
    compiled = []

    def compile_(function, **options):
        def run(*args, **kwargs):
            compiled.append((function.__self__, options))
            return function(*args, **kwargs)

        return run

    monkeypatch.setattr(torch, 'compile', compile_)
    model = Detector().eval()
    names, x = list(model.state_dict()), torch.randn(1, 3, 32, 32)
    expected = model(x)
    HOOKS.build({'type': 'CompileBackbone', 'dynamic': True}).before_run(runner_of(model, tmp_path))
    assert torch.equal(model(x), expected)
    assert compiled == [(model.backbone, {'dynamic': True})]
    assert list(model.state_dict()) == names


def test_without_a_backbone(tmp_path):
    with pytest.raises(UserError, match='Linear has no backbone'):
        HOOKS.build({'type': 'CompileBackbone'}).before_run(
            runner_of(torch.nn.Linear(1, 1), tmp_path)
        )


@pytest.mark.slow
@pytest.mark.parametrize(('family', 'arch'), TINY)
def test_one_graph(family, arch):
    torch._dynamo.reset()
    model, x = family(arch=arch).eval().switch_to_deploy(), torch.randn(1, 3, 64, 64)
    expected = model(x)
    model.compile(backend='eager', fullgraph=True)
    assert largest_deviation(model(x), expected) < 1e-4
