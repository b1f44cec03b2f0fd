"""Gradient checkpointing that leaves BatchNorm statistics alone."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import checkpoint as torch_checkpoint


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let BatchNorms normalise by the batch without updating their running averages again."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, num_batches_tracked in kept:
            norm.momentum, norm.num_batches_tracked = momentum, num_batches_tracked


def checkpoint(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Compute ``module(x)``, keep no activations, and run it again in the backward pass.

    Outputs, gradients and running statistics equal those of a plain call; without care, the second
    run would count each batch twice in every BatchNorm.
    """
    return torch_checkpoint.checkpoint(
        module,
        x,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _statistics_kept(module)),
    )
