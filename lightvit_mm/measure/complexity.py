"""Counting parameters and multiply-accumulates, as tables of papers give them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, trained or frozen, buffers not among them."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def count_macs(model: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulates of one forward pass of ``model`` on a (1, 3, height, width) image.

    Convolutions, linear layers and both products of attention count; norms, activations, sums and
    interpolations don't, as is the custom of the papers. Nothing is computed: a copy of the model
    on the meta device is only asked for shapes.
    """
    shapes_only = copy.deepcopy(model).eval().to('meta')
    with FlopCounterMode(display=False) as counter:
        shapes_only(torch.zeros(1, 3, height, width, device='meta'))
    return counter.get_total_flops() // 2


def inference_form(model: nn.Module) -> nn.Module:
    """A detector or segmentor as a module from images to head outputs, to be counted.

    Of a two-stage detector it has the first stage only: what the second one costs depends on the
    number of proposals.
    """
    return _Inference(model)


class _Inference(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> Any:
        model: Any = self.model
        if hasattr(model, 'roi_head'):
            return model.rpn_head(model.extract_feat(x))
        return model(x, mode='tensor')
