"""Adaptive gradient clipping (https://arxiv.org/abs/2102.06171), by timm's function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from lightvit_mm.registry import OPTIM_WRAPPERS
from lightvit_mm.timm_import import import_timm


class AdaptiveClipping(OptimWrapper):
    """Mixin of optimizer wrappers: every parameter's gradient is clipped, the head's included.

    Args:
        arguments, options: see mmengine's wrapper; ``clip_grad`` is not used.
        clip_factor: largest ratio of the norms of gradient and weights, for each output.
    """

    def __init__(self, *arguments: Any, clip_factor: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.clip_func: Any = _clip
        self.clip_grad_kwargs = {'clip_factor': clip_factor}


def _clip(parameters: Sequence[torch.Tensor], clip_factor: float) -> None:
    import_timm().utils.adaptive_clip_grad(parameters, clip_factor)


@OPTIM_WRAPPERS.register_module()
class AdaptiveClipOptimWrapper(AdaptiveClipping):
    """mmengine's ``OptimWrapper`` with adaptive clipping."""


@OPTIM_WRAPPERS.register_module()
class AmpAdaptiveClipOptimWrapper(AdaptiveClipping, AmpOptimWrapper):
    """mmengine's ``AmpOptimWrapper`` with adaptive clipping."""
