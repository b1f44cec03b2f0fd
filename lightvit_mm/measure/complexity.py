"""Counting parameters and multiply-accumulates the way papers do."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, trained or frozen, without buffers."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def count_macs(model: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulates of one forward pass of ``model`` on a (1, 3, height, width) image.

    As in most papers, convolutions, linear layers and both products of attention count; norms,
    activations, sums and interpolations don't. A copy of the model runs on the meta device, where
    only shapes are computed.
    """
    shapes_only = copy.deepcopy(model).eval().to('meta')
    with FlopCounterMode(display=False) as counter:
        shapes_only(torch.zeros(1, 3, height, width, device='meta'))
    return counter.get_total_flops() // 2


def inference_form(model: nn.Module) -> nn.Module:
    """A detector or segmentor as a module from images to head outputs, for `count_macs`.

    Of a two-stage detector only the first stage runs, because the cost of the second depends on
    the number of proposals.
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
