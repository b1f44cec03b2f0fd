"""The initialisation that the transformer papers share, and building without any."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# What torch's modules and papers' initialisations call to fill a tensor.
FILLING = (
    'kaiming_uniform_', 'kaiming_normal_', 'xavier_uniform_', 'uniform_', 'normal_', 'zero_',
    'fill_', 'erfinv_', 'mul_', 'add_', 'clamp_',
)  # fmt: skip


def init_linear(module: nn.Module) -> None:
    """Truncated normal weights with standard deviation 0.02 and zero biases; for `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Modules that are built inside have shapes and no values.

    They are on the meta device, where torch would spend most of the time on initial values that
    do not exist.
    """
    with torch.device('meta'), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, '__name__', '') in FILLING:
            tensor: torch.Tensor = args[0] if args else kwargs['tensor']  # torch.nn.init's way
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)
