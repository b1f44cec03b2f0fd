"""Mixed precision on CPUs, which mmengine's own wrapper does not support."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from lightvit_mm.classification.clipping import AdaptiveClipping
from lightvit_mm.errors import UserError
from lightvit_mm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Optimizer wrapper with bfloat16 autocast, on any device; mmengine's own needs a GPU.

    bfloat16 has the exponent range of float32, so no loss scaling is needed. `use_amp` takes it on
    a CPU; a config that such a training saved trains in bfloat16 on a GPU as well.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass of a training step in autocast."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


@OPTIM_WRAPPERS.register_module()
class BFloat16AdaptiveClipOptimWrapper(AdaptiveClipping, BFloat16OptimWrapper):
    """`BFloat16OptimWrapper` with adaptive clipping."""


# The wrappers with mixed precision of those without, on a GPU and on a CPU.
WRAPPERS = {
    'OptimWrapper': ('AmpOptimWrapper', 'BFloat16OptimWrapper'),
    'AmpOptimWrapper': ('AmpOptimWrapper', 'BFloat16OptimWrapper'),
    'AdaptiveClipOptimWrapper': ('AmpAdaptiveClipOptimWrapper', 'BFloat16AdaptiveClipOptimWrapper'),
}


def use_amp(config: Any) -> None:
    """Switch a config to mixed precision, in place: float16 on CUDA, bfloat16 on a CPU.

    Raises:
        UserError: the config has a special optimizer wrapper, or on a CPU, the model has an
            operator without bfloat16 support.
    """
    wrapper = config.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind not in WRAPPERS:
        raise UserError(f'--amp needs optim_wrapper.type OptimWrapper, but the config has {kind}')
    on_gpu, on_cpu = WRAPPERS[kind]
    if torch.cuda.is_available():
        wrapper.type = on_gpu
        wrapper.setdefault('loss_scale', 'dynamic')
        return
    if 'roi_head' in config.model:
        raise UserError(
            "--amp on a CPU means bfloat16, for which mmcv's RoIAlign has no CPU kernel; "
            'train this model without --amp, or on a GPU'
        )
    wrapper.type = on_cpu
    wrapper.pop('loss_scale', None)
