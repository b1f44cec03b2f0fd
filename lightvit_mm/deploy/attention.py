"""Attention without a mask, in tiles through oneDNN where that is the faster way."""

from __future__ import annotations

import torch
from torch.nn import functional as F

__all__ = ['attend']

# Scores of so many queries stay in a core's cache; fewer keys don't make up for the further calls.
TILE = 256
FEWEST_KEYS = 512


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None = None
) -> torch.Tensor:
    """``F.scaled_dot_product_attention``, (B, heads, tokens, C) each and the same shape out.

    torch's kernel for CPUs leaves its products to the BLAS, which on some machines is half as fast
    as oneDNN. For many tokens, without gradients, the products go to oneDNN instead, some queries
    at a time, so that the matrix of all scores never exists. In bfloat16 scores are rounded, as
    autocast rounds any product. Exported graphs of one size have the same tiles.

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
    batch, heads, length, dim = query.shape
    linear = torch.ops.mkldnn._linear_pointwise.default
    # oneDNN is very slow with tokens that lie apart.
    query = (query * (dim**-0.5 if scale is None else scale)).contiguous()
    key, value = key.contiguous(), value.transpose(2, 3).contiguous()
    out = torch.empty(query.shape, dtype=query.dtype)
    for image in range(batch):
        for head in range(heads):
            for start in range(0, length, TILE):
                tile = image, head, slice(start, start + TILE)
                scores = linear(query[tile], key[image, head], None, 'none', [], '')
                torch.softmax(scores, -1, out=scores)
                out[tile] = linear(scores, value[image, head], None, 'none', [], '')
    return out


def _is_long(length: int | torch.SymInt) -> bool:
    # An open size has no number of tiles.
    return isinstance(length, int) and length >= FEWEST_KEYS


def _tiles_pay(query: torch.Tensor, key: torch.Tensor) -> bool:
    autocast = torch.is_autocast_enabled('cpu')
    return (
        key.shape[2] >= FEWEST_KEYS
        and query.is_cpu
        and query.dtype == key.dtype
        and (query.dtype == torch.bfloat16 or (query.dtype == torch.float32 and not autocast))
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and torch.backends.mkldnn.is_available()
        and torch._C._get_mkldnn_enabled()
        and hasattr(torch.ops.mkldnn, '_linear_pointwise')
    )
