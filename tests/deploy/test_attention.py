import pytest
import torch
from torch.nn import functional as F

from lightvit_mm.deploy import attention
from lightvit_mm.deploy.attention import attend


@pytest.fixture
def tiles(monkeypatch) -> list[int]:
    """The number of calls that went through tiles of 100 queries."""
    calls: list[int] = []

    def pay(*args, decide=attention._tiles_pay):
        calls.append(decide(*args))
        return calls[-1]

    monkeypatch.setattr(attention, 'TILE', 100)
    monkeypatch.setattr(attention, '_tiles_pay', pay)
    return calls


@pytest.mark.parametrize(('batch', 'heads', 'length', 'dim'), [(2, 3, 530, 20), (1, 1, 600, 48)])
@pytest.mark.parametrize('scale', [None, 0.5])
def test_tiles_compute_what_torch_does(tiles, batch, heads, length, dim, scale):
    query, key, value = torch.randn(batch, length, 3, heads, dim).permute(2, 0, 3, 1, 4)
    with torch.inference_mode():
        out = attend(query, key, value, scale)
        expected = F.scaled_dot_product_attention(query, key, value, scale=scale)
    assert tiles == [torch.backends.mkldnn.is_available()]
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


def test_tiles_in_bfloat16(tiles):
    query, key, value = torch.randn(3, 1, 2, 700, 24)
    with torch.inference_mode():
        expected = attend(query, key, value)
        out = attend(query.bfloat16(), key.bfloat16(), value.bfloat16())
    assert out.dtype == torch.bfloat16
    assert tiles == [torch.backends.mkldnn.is_available()] * 2
    assert (out - expected).std() < 0.02 * expected.std()


def test_few_tokens_gradients_and_other_precisions_are_left_to_torch(tiles):
    tokens = torch.randn(1, 2, 600, 8)
    with torch.no_grad():
        attend(*[tokens[:, :, :500]] * 3)
        attend(*[tokens.double()] * 3)
        with torch.autocast('cpu', torch.bfloat16):
            attend(*[tokens] * 3)
    attend(*[tokens] * 3)
    tokens.requires_grad_()
    attend(*[tokens] * 3).sum().backward()
    assert tokens.grad.isfinite().all()
    assert not any(tiles)
    assert len(tiles) == 5
