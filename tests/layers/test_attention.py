import pytest
import torch
from torch.nn import functional as F

from lightvit_mm.layers import attention
from lightvit_mm.layers.attention import attend

HAS_ONEDNN = torch.backends.mkldnn.is_available()
SHAPES = [(2, 3, 530, 20), (1, 1, 600, 48), (1, 2, 512, 8)]


@pytest.fixture
def tiles(monkeypatch) -> list[int]:
    """For each call whether it went through tiles, of some 100 queries."""
    calls: list[int] = []

    def pay(*args, decide=attention._tiles_pay):
        calls.append(decide(*args))
        return calls[-1]

    monkeypatch.setattr(attention, 'TILE', 100)
    monkeypatch.setattr(attention, '_tiles_pay', pay)
    return calls


def random_tokens(batch: int, heads: int, length: int, dim: int) -> list[torch.Tensor]:
    """Queries, keys and values as the qkv layer of a network gives them."""
    return list(torch.randn(batch, length, 3, heads, dim).permute(2, 0, 3, 1, 4))


def gradients(
    function, tokens: list[torch.Tensor], dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    """Those of queries, keys and values, of a sum that weighs every output differently."""
    leaves = [part.to(dtype).detach().requires_grad_() for part in tokens]
    out = function(*leaves)
    (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)).sum().backward()
    return [leaf.grad for leaf in leaves]


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('scale', [None, 0.5])
def test_tiles_compute_what_torch_does(tiles, shape, scale):
    query, key, value = random_tokens(*shape)
    with torch.inference_mode():
        out = attend(query, key, value, scale)
        expected = F.scaled_dot_product_attention(query, key, value, scale=scale)
    assert tiles == [HAS_ONEDNN]
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('queries', [None, 250])
@pytest.mark.parametrize('shape', SHAPES)
def test_gradients_are_those_of_double_precision(tiles, shape, queries):
    query, key, value = random_tokens(*shape)
    tokens = [query[:, :, :queries], key, value]
    ours = gradients(attend, tokens)
    plain = gradients(F.scaled_dot_product_attention, tokens)
    exact = gradients(F.scaled_dot_product_attention, tokens, torch.float64)
    assert tiles == [HAS_ONEDNN]
    for gradient, plain_one, exact_one in zip(ours, plain, exact, strict=True):
        assert (gradient - exact_one).norm() < 3 * (plain_one - exact_one).norm()


def test_only_what_is_asked_for_gets_a_gradient(tiles):
    query, key, value = random_tokens(1, 1, 600, 8)
    value.requires_grad_()
    attend(query, key, value).sum().backward()
    # Each query hands out one in all.
    torch.testing.assert_close(value.grad.sum(2), torch.full((1, 1, 8), 600.0))
    assert query.grad is None
    assert tiles == [HAS_ONEDNN]


def test_tiles_in_bfloat16(tiles):
    tokens = random_tokens(1, 2, 700, 24)
    with torch.inference_mode():
        expected = attend(*tokens)
        out = attend(*[part.bfloat16() for part in tokens])
    assert out.dtype == torch.bfloat16
    assert tiles == [HAS_ONEDNN] * 2
    assert (out - expected).std() < 0.02 * expected.std()


def test_gradients_in_bfloat16(tiles):
    tokens = random_tokens(1, 2, 700, 24)
    exact = gradients(F.scaled_dot_product_attention, tokens, torch.float64)
    for gradient, exact_one in zip(gradients(attend, tokens, torch.bfloat16), exact, strict=True):
        assert gradient.dtype == torch.bfloat16
        assert (gradient - exact_one).norm() < 0.02 * exact_one.norm()
    assert tiles == [HAS_ONEDNN]


@pytest.mark.parametrize('scores', [1, 700, 10_000, 10**9])
@pytest.mark.parametrize('length', [1, 99, 149, 700])
def test_tiles_hold_every_query_once(monkeypatch, scores, length):
    monkeypatch.setattr(attention, 'TILE', 100)
    monkeypatch.setattr(attention, 'MOST_SCORES', scores)
    query, key = torch.zeros(2, 3, length, 4), torch.zeros(2, 3, 700, 4)
    largest = 0
    for tile in attention._tiles(query, key):
        query[tile] += 1
        largest = max(largest, query[tile].shape[0])
    assert query.eq(1).all()
    assert largest < 150
    assert (largest - 1) * 700 < scores


def test_few_tokens_other_precisions_and_functorch_are_left_to_torch(tiles):
    tokens = torch.randn(1, 2, 600, 8)
    with torch.no_grad():
        attend(*[tokens[:, :, :500]] * 3)
        attend(*[tokens.double()] * 3)
        with torch.autocast('cpu', torch.bfloat16):
            attend(*[tokens] * 3)
    gradient = torch.func.grad(lambda x: attend(x, x, x).square().sum())(tokens)
    assert not any(tiles)
    assert len(tiles) == 4
    tokens.requires_grad_()
    attend(*[tokens] * 3).square().sum().backward()
    torch.testing.assert_close(gradient, tokens.grad, rtol=1e-4, atol=1e-5)
