"""Attention without a mask, in tiles through oneDNN where that is the faster way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ['attend']

# About so many queries at a time, unless their scores would no longer stay in the caches.
TILE = 512
MOST_SCORES = 2**22
# With fewer keys, tiles don't make up for the further calls.
FEWEST_KEYS = 512

Tile = tuple[int, int, slice]  # image, head, queries


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None = None
) -> torch.Tensor:
    """``F.scaled_dot_product_attention``, (B, heads, tokens, C) each and the same shape out.

    torch's kernel for CPUs leaves its products to the BLAS, which on some machines is half as fast
    as oneDNN. For many tokens the products go to oneDNN instead, some queries at a time, so that
    the matrix of all scores never exists; the backward pass computes them a second time. In
    bfloat16 scores are rounded, as autocast rounds any product. Exported graphs of one size have
    tiles as well.

    Args:
        query, key, value: of equal shapes, but that queries may be fewer.
        scale: of the scores; None is one over the root of C.
    """
    if torch.onnx.is_in_onnx_export() and _is_long(key.shape[2]):
        tiles = query.split(TILE, dim=2)
        outs = [F.scaled_dot_product_attention(tile, key, value, scale=scale) for tile in tiles]
        return torch.cat(outs, dim=2)
    if not _tiles_pay(query, key):
        return F.scaled_dot_product_attention(query, key, value, scale=scale)
    return _Tiled.apply(query, key, value, query.shape[3] ** -0.5 if scale is None else scale)


class _Tiled(torch.autograd.Function):
    """Attention that keeps its three inputs for the backward pass, and no scores."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.scale = scale
        # oneDNN is very slow with tokens that lie apart.
        query, key, values = (query * scale).contiguous(), key.contiguous(), _columns(value)
        out = torch.empty(query.shape, dtype=query.dtype)
        for tile in _tiles(query, key):
            scores = _scores(query, key, tile)
            out[tile] = _times(scores, values[tile[:2]])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        query, key, value = (query * ctx.scale).contiguous(), key.contiguous(), value.contiguous()
        grad_out = grad_out.contiguous()
        keys, queries, grad_outs = _columns(key), _columns(query), _columns(grad_out)
        grad_query = torch.empty_like(query)
        # Both are sums over tiles, in which bfloat16 would lose digits.
        grad_keys = torch.zeros_like(keys, dtype=torch.float32)
        grad_values = torch.zeros_like(grad_keys)
        for tile in _tiles(query, key):
            head, columns = tile[:2], (*tile[:2], slice(None), tile[2])
            scores = _scores(query, key, tile)
            grad_values[head] += _times(grad_outs[columns], scores.T)
            grad = _times(grad_out[tile], value[head])
            torch.ops.aten._softmax_backward_data.out(grad, scores, -1, grad.dtype, grad_input=grad)
            grad_keys[head] += _times(queries[columns], grad.T)
            grad_query[tile] = _times(grad, keys[head])
        return (
            grad_query.mul_(ctx.scale),
            grad_keys.to(key.dtype).transpose(2, 3),
            grad_values.to(value.dtype).transpose(2, 3),
            None,
        )


def _tiles(query: torch.Tensor, key: torch.Tensor) -> Iterator[Tile]:
    batch, heads, length, _ = query.shape
    # Tiles of one size: a small one at the end would cost as many calls as a whole one.
    count = max(round(length / TILE), math.ceil(length * key.shape[2] / MOST_SCORES), 1)
    size = math.ceil(length / count)
    starts = range(0, length, size)
    for image, head, start in itertools.product(range(batch), range(heads), starts):
        yield image, head, slice(start, start + size)


def _scores(query: torch.Tensor, key: torch.Tensor, tile: Tile) -> torch.Tensor:
    """What each query of a tile, scaled already, takes of each key: (queries, keys)."""
    scores = _times(query[tile], key[tile[:2]])
    return torch.softmax(scores, -1, out=scores)


def _times(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``left @ right.T``."""
    return torch.ops.mkldnn._linear_pointwise.default(left, right, None, 'none', [], '')


def _columns(tokens: torch.Tensor) -> torch.Tensor:
    """(B, heads, tokens, C) as (B, heads, C, tokens)."""
    return tokens.transpose(2, 3).contiguous()


def _is_long(length: int | torch.SymInt) -> bool:
    # An open size has no number of tiles.
    return isinstance(length, int) and length >= FEWEST_KEYS


def _tiles_pay(query: torch.Tensor, key: torch.Tensor) -> bool:
    autocast = torch.is_autocast_enabled('cpu')
    return (
        # First: the compiler cannot follow what comes behind, and would cut its graph there.
        not torch.compiler.is_compiling()
        and key.shape[2] >= FEWEST_KEYS
        and query.is_cpu
        and query.dtype == key.dtype
        and (query.dtype == torch.bfloat16 or (query.dtype == torch.float32 and not autocast))
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and torch.backends.mkldnn.is_available()
        and torch._C._get_mkldnn_enabled()
        and hasattr(torch.ops.mkldnn, '_linear_pointwise')
    )
