"""Training steps that keep less are as close to double precision as those that keep all."""

import copy

import pytest
import torch
from conftest import SMALLEST, randomise_norms

from lightvit_mm.layers import lean


def step(model: torch.nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All gradients of a training step, and the buffers behind it."""
    x = images.clone().requires_grad_()
    outputs = model.train()(x)
    weighted = [out * torch.linspace(-1, 1, out.shape[1]).view(-1, 1, 1) for out in outputs]
    sum(out.square().mean() for out in weighted).backward()
    gradients = [x.grad, *(p.grad for p in model.parameters())]
    flat = [[t.double().flatten() for t in ts] for ts in (gradients, model.buffers())]
    return torch.cat(flat[0]), torch.cat([torch.zeros(1), *flat[1]])


@pytest.mark.parametrize('norm_eval', [False, True], ids='norm_eval={}'.format)
@pytest.mark.parametrize(('family', 'arch'), SMALLEST)
def test_gradients_and_statistics(family, arch, norm_eval, monkeypatch):
    calls = []
    for function in (lean._NormActConv, lean._ActConv):
        monkeypatch.setattr(
            function,
            'apply',
            lambda *args, apply=function.apply: (calls.append(1), apply(*args))[1],
        )
    monkeypatch.setattr(lean, 'PIECE_BYTES', 2**15)  # more than one piece a map
    model = family(arch=arch, norm_eval=norm_eval)
    randomise_norms(model)
    plain, double = copy.deepcopy(model), copy.deepcopy(model).double()
    images = torch.randn(2, 3, 97, 131)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # on one, linear layers keep all
    try:
        results = step(model, images)
        assert calls
        calls.clear()
        monkeypatch.setattr(lean, '_in_plain_training', lambda x: False)
        plain_results = step(plain, images)
        assert not calls
    finally:
        torch.set_num_threads(threads)
    expected = step(double, images.double())
    for lean_ones, plain_ones, exact in zip(results, plain_results, expected, strict=True):
        error, plain_error = ((ones - exact).norm() for ones in (lean_ones, plain_ones))
        assert error < 3 * plain_error + 1e-6 * exact.norm()
