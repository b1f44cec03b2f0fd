"""Counting parameters and multiply-accumulates, as tables of papers give them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

ATTENTION_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _attention_flops(
    query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
) -> int:
    return sdpa_flop_count(query, key, value)


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, trained or frozen, buffers not among them."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def count_macs(model: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulates of one forward pass of ``model`` on a (1, 3, height, width) image.

    Convolutions, linear layers and both products of attention count; norms, activations, sums and
    interpolations don't, as is the custom of the papers.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    # torch's counter knows the attention kernels of GPUs only.
    counter = FlopCounterMode(display=False, custom_mapping={ATTENTION_ON_CPU: _attention_flops})
    with counter:
        model(torch.zeros(1, 3, height, width, device=device))
    model.train(was_training)
    return counter.get_total_flops() // 2
