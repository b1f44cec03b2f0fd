import pytest
import torch

from lightvit_mm.layers.contiguous import contiguous_levels


@pytest.mark.parametrize('training', [False, True])
def test_levels_come_contiguous_and_gradients_in_channels_last(training):
    level = torch.randn(2, 4, 5, 6).contiguous(memory_format=torch.channels_last)
    level.requires_grad_(training)
    gradients = []
    if training:
        level.register_hook(gradients.append)
    (out,) = contiguous_levels(torch.nn.Identity(), (level,), (level * 1,))
    assert out.is_contiguous()
    assert torch.equal(out, level)
    if training:
        weights = torch.randn_like(out)
        (out * weights).sum().backward()
        assert torch.equal(level.grad, weights)
        assert gradients[0].is_contiguous(memory_format=torch.channels_last)
