import pytest
import torch
from mmcv.cnn.bricks.drop import drop_path as mmcv_drop_path

from lightvit_mm.layers import DropPath


@pytest.mark.parametrize('shape', [(64, 5), (64, 3, 2, 4)], ids=str)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_is_the_sum_with_what_mmcv_drops(shape, dtype):
    x, branch = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(2))
    other_x, other_branch = (t.detach().clone().requires_grad_() for t in (x, branch))
    torch.manual_seed(3)
    out = DropPath(0.4).train()(x, branch)
    torch.manual_seed(3)
    expected = other_x + mmcv_drop_path(other_branch, 0.4, training=True)
    # mmcv rounds three times where we round once; bfloat16 keeps 8 bits.
    tolerance = dict.fromkeys(('rtol', 'atol'), 1e-5 if dtype == torch.float32 else 0.02)
    torch.testing.assert_close(out, expected, **tolerance)
    dropped = (out == x).flatten(1).all(1)
    assert 0 < dropped.sum() < 64
    weights = torch.randn_like(out)
    out.backward(weights)
    expected.backward(weights)
    torch.testing.assert_close(x.grad, other_x.grad, **tolerance)
    torch.testing.assert_close(branch.grad, other_branch.grad, **tolerance)


@pytest.mark.parametrize(('rate', 'training'), [(0.0, True), (0.4, False)])
def test_is_the_plain_sum_elsewhere(rate, training):
    x, branch = torch.randn(2, 8, 3)
    assert torch.equal(DropPath(rate).train(training)(x, branch), x + branch)


def test_keeps_no_map_for_the_backward_pass():
    x, branch = (torch.randn(8, 3, 5, requires_grad=True) for _ in range(2))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda tensor: tensor):
        DropPath(0.5).train()(x, branch)
    assert {tensor.numel() for tensor in kept} == {8}


def test_a_sum_of_two_data_types_is_of_the_wider_one():
    x, branch = torch.randn(8, 3), torch.randn(8, 3, dtype=torch.bfloat16)
    assert DropPath(0.5).train()(x, branch).dtype == torch.float32
