"""Convolutions and linear layers that run on packed weights in the deploy form.

oneDNN multiplies fastest with weights in an order of its own. torch orders them anew in every call
of a convolution, and gives linear layers (and 1x1 convolutions on one thread) to another library,
which is half as fast on some machines. In the deploy form the weights don't change, so they are
ordered once, at the first call without gradients, and kept beside the plain ones (twice the memory
of the weights). The activation behind is then applied on the way out. Everywhere else these are
torch's own layers: with gradients, on other devices, while compiling, tracing and exporting, and
where torch has no oneDNN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ['Activation', 'Conv2d', 'Linear', 'activate']

# What torch.compile uses on CPUs. Not public: a torch without them does without packing.
OPERATORS = ('_convolution_pointwise', '_reorder_convolution_weight')
DTYPES = (torch.float32, torch.bfloat16)

Activation = Literal['relu', 'gelu', 'silu'] | None
# In place where the gradient of what comes before does not need its result.
PLAIN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    'relu': partial(F.relu, inplace=True),
    'gelu': F.gelu,
    'silu': F.silu,
}
# As the operator names them, with its two further arguments.
FUSED: dict[Activation, tuple[str, list[float], str]] = {
    None: ('none', [], ''),
    'relu': ('relu', [], ''),
    'gelu': ('gelu', [], 'none'),
    'silu': ('swish', [], ''),
}


def activate(x: torch.Tensor, act: Activation) -> torch.Tensor:
    """Apply an activation to what a layer or a norm has just made; ``x`` may be overwritten."""
    return PLAIN[act](x) if act else x


def packing_available() -> bool:
    """Whether this torch can pack weights on CPUs."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in OPERATORS
    )


class _Packing(nn.Module):
    """Keeps one packed copy of the weights, while neither they nor the data type change."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.packs = False
        self._packed: tuple[torch.Tensor, torch.Tensor | None] | None = None
        self._packed_from: tuple[Any, ...] = ()

    def fold(self) -> None:
        """From here on pack the weights where it is possible."""
        self.packs = packing_available()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the packed copy out of copies and files: it can neither be copied nor saved."""
        return {**self.__dict__, '_packed': None, '_packed_from': ()}

    def _dtype_to_pack(self, x: torch.Tensor, weight: torch.Tensor) -> torch.dtype | None:
        """What to compute in on packed weights; None if plain ones have to do."""
        if (
            not self.packs
            or torch.compiler.is_compiling()
            or torch.jit.is_tracing()
            or torch.is_grad_enabled()
            or x.device.type != 'cpu'
            or x.numel() == 0  # which the operator does not know
            or weight.device.type != 'cpu'
            or weight.is_inference()  # which has no version to tell a change by
            or not torch.backends.mkldnn.enabled
        ):
            return None
        if torch.is_autocast_enabled('cpu'):
            dtype = torch.get_autocast_dtype('cpu')
        elif x.dtype == weight.dtype:
            dtype = x.dtype
        else:
            return None
        return dtype if dtype in DTYPES else None

    def _convolve(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        geometry: tuple[Any, ...],
        act: Activation,
    ) -> torch.Tensor:
        """Convolve (N, C, H, W) and activate; ``x`` has the data type to compute in."""
        plain = [tensor.detach() for tensor in (weight, bias) if tensor is not None]
        state = (x.dtype, *((tensor.data_ptr(), tensor._version) for tensor in plain))
        if self._packed is None or self._packed_from[0] != state:
            converted = [tensor.to(x.dtype) for tensor in plain]
            reordered = torch.ops.mkldnn._reorder_convolution_weight(
                converted[0], *geometry, x.shape
            )
            self._packed = reordered, converted[1] if bias is not None else None
            # The plain ones are kept so that nothing else can come to lie at their address.
            self._packed_from = state, *plain
        return torch.ops.mkldnn._convolution_pointwise(x, *self._packed, *geometry, *FUSED[act])


class Conv2d(_Packing, nn.Conv2d):
    """torch's convolution, and an activation: (N, C, H, W) to (N, C', H', W')."""

    def forward(self, x: torch.Tensor, act: Activation = None) -> torch.Tensor:
        """Convolve and activate."""
        dtype = self._dtype_to_pack(x, self.weight)
        if dtype is None:
            return activate(super().forward(x), act)
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        x = x.to(dtype).contiguous(memory_format=torch.channels_last)
        return self._convolve(x, self.weight, self.bias, geometry, act)


class Linear(_Packing, nn.Linear):
    """torch's linear layer, and an activation: (..., C) to (..., C')."""

    def forward(self, x: torch.Tensor, act: Activation = None) -> torch.Tensor:
        """Multiply, shift and activate."""
        dtype = self._dtype_to_pack(x, self.weight)
        if dtype is None:
            return activate(super().forward(x), act)
        # A 1x1 convolution of a column of pixels: the operator for linear layers is no faster, and
        # slower with an activation.
        pixels = x.to(dtype).reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
        weight = self.weight[:, :, None, None]
        geometry = ((0, 0), (1, 1), (1, 1), 1)
        out = self._convolve(pixels, weight, self.bias, geometry, act)
        return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)
