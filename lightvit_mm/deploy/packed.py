"""Convolutions and linear layers that run on packed weights in the deploy form.

oneDNN multiplies fastest with weights in an order of its own. torch orders them anew in every call
of a convolution, and gives linear layers (and 1x1 convolutions on one thread) to another library,
which is half as fast on some machines. In the deploy form the weights don't change, so they are
ordered once for each size of input, in calls without gradients, and kept beside the plain ones.
There are one or two orders in all (two or three times the memory of the weights), but which of them
is the right one depends on the size: in the other a layer takes up to fifty times as long. The
activation behind is applied on the way out. Everywhere else these are torch's own layers: with
gradients, on other devices, while compiling, tracing and exporting, and where torch has no oneDNN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ['Activation', 'Conv2d', 'Linear', 'activate']

# What torch.compile uses on CPUs. Not public: a torch without them does without packing.
OPERATORS = (
    '_convolution_pointwise',
    '_linear_pointwise',
    '_reorder_convolution_weight',
    '_reorder_linear_weight',
    '_get_mkldnn_serialized_md',
)
DTYPES = (torch.float32, torch.bfloat16)
# Sizes of input that a layer remembers the order of: more than a data set of photographs has.
MOST_SHAPES = 512

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


class Packed(NamedTuple):
    """Weights and bias in the data type to compute in.

    Attributes:
        weight: in oneDNN's order.
        bias: if there is one.
        order: oneDNN's description of the order, which includes the data type.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    order: bytes


def packing_available() -> bool:
    """Whether this torch can pack weights on CPUs."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in OPERATORS
    )


class _Packing(nn.Module):
    """Keeps the weights packed in each order that is asked for, while they don't change."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.packs = False
        # By data type and shape of the input; those of one order are one.
        self._packed: dict[tuple[torch.dtype, torch.Size], Packed] = {}
        self._packed_from: tuple[Any, ...] = ()

    def fold(self) -> None:
        """From here on pack the weights where it is possible."""
        self.packs = packing_available()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the packed copy out of copies and files: it can neither be copied nor saved."""
        return {**self.__dict__, '_packed': {}, '_packed_from': ()}

    def dtype_to_pack(self, x: torch.Tensor) -> torch.dtype | None:
        """What to compute in on packed weights; None if plain ones have to do."""
        # In short steps: a small network calls this a hundred times in twenty milliseconds.
        weight = self._parameters['weight']
        assert weight is not None
        if (
            not self.packs
            or torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or torch.jit.is_tracing()
            or not (x.is_cpu and weight.is_cpu)
            or not x.numel()  # nothing is what the operator cannot convolve
            or weight.is_inference()  # which has no version to tell a change by
            or not torch._C._get_mkldnn_enabled()
        ):
            return None
        if torch.is_autocast_enabled('cpu'):
            dtype = torch.get_autocast_dtype('cpu')
        else:
            dtype = x.dtype
            if dtype != weight.dtype:
                return None
        return dtype if dtype in DTYPES else None

    def _convolve(
        self, x: torch.Tensor, act: Activation, geometry: tuple[Any, ...]
    ) -> torch.Tensor:
        """Convolve (N, C, H, W) and activate; ``x`` has the data type to compute in."""
        packed = self._packed_for(x)
        if packed is None:
            packed = self._pack(
                x,
                lambda weight: torch.ops.mkldnn._reorder_convolution_weight(
                    weight, *geometry, x.shape
                ),
            )
        return torch.ops.mkldnn._convolution_pointwise.default(
            x, packed.weight, packed.bias, *geometry, *FUSED[act]
        )

    def _multiply(self, x: torch.Tensor, act: Activation) -> torch.Tensor:
        """Multiply (..., C), shift and activate; ``x`` has the data type to compute in."""
        packed = self._packed_for(x)
        if packed is None:
            rows = x.numel() // x.shape[-1]
            packed = self._pack(
                x,
                lambda weight: torch.ops.mkldnn._reorder_linear_weight(weight.flatten(1), rows),
            )
        return torch.ops.mkldnn._linear_pointwise.default(
            x, packed.weight, packed.bias, *FUSED[act]
        )

    def _packed_for(self, x: torch.Tensor) -> Packed | None:
        """What inputs like ``x`` have been packed to before."""
        weight, bias = self._parameters['weight'], self._parameters['bias']
        assert weight is not None
        state: tuple[Any, ...] = (weight.data_ptr(), weight._version)
        if bias is not None:
            state = (*state, bias.data_ptr(), bias._version)
        if not self._packed_from or self._packed_from[0] != state:
            self._packed.clear()
            # The plain ones are kept so that nothing else can come to lie at their address.
            plain = [tensor.detach() for tensor in (weight, bias) if tensor is not None]
            self._packed_from = (state, *plain)
        return self._packed.get((x.dtype, x.shape))

    def _pack(self, x: torch.Tensor, reorder: Callable[[torch.Tensor], torch.Tensor]) -> Packed:
        """Order the weights for inputs like ``x``; one copy of each order is kept."""
        weight, bias = self._parameters['weight'], self._parameters['bias']
        assert weight is not None
        ordered = reorder(weight.detach().to(x.dtype))
        order = bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(ordered).tolist())
        packed = next((known for known in self._packed.values() if known.order == order), None)
        if packed is None:
            packed = Packed(ordered, bias.detach().to(x.dtype) if bias is not None else None, order)
        if len(self._packed) >= MOST_SHAPES:
            self._packed.clear()
        self._packed[x.dtype, x.shape] = packed
        return packed


class Conv2d(_Packing, nn.Conv2d):
    """torch's convolution, and an activation: (N, C, H, W) to (N, C', H', W')."""

    def forward(self, x: torch.Tensor, act: Activation = None) -> torch.Tensor:
        """Convolve and activate."""
        dtype = self.dtype_to_pack(x)
        if dtype is None:
            return activate(super().forward(x), act)
        x = x if x.dtype == dtype else x.to(dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        if x.dim() == 4 and self._is_product():
            # The same kernel as of the convolution, which takes 9 microseconds more to start.
            return self._multiply(x.permute(0, 2, 3, 1), act).permute(0, 3, 1, 2)
        return self._convolve(x, act, (self.padding, self.stride, self.dilation, self.groups))

    def _is_product(self) -> bool:
        """Whether each output pixel depends on the one at its place, in all channels."""
        return (
            self.kernel_size == (1, 1)
            and self.groups == 1
            and self.stride == (1, 1)
            and self.padding == (0, 0)
        )

    def on_tokens(self, x: torch.Tensor) -> torch.Tensor:
        """A dense 1x1 convolution of maps with channels last: (N, H, W, C) to (N, H, W, C')."""
        if torch.onnx.is_in_onnx_export():
            # onnxruntime would transpose on both sides of a convolution.
            return F.linear(x, self.weight.flatten(1), self.bias)
        return self(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Linear(_Packing, nn.Linear):
    """torch's linear layer, and an activation: (..., C) to (..., C')."""

    def forward(self, x: torch.Tensor, act: Activation = None) -> torch.Tensor:
        """Multiply, shift and activate."""
        dtype = self.dtype_to_pack(x)
        if dtype is not None:
            return self._multiply(x if x.dtype == dtype else x.to(dtype), act)
        if not _convolution_is_faster(x, self.weight):
            return activate(super().forward(x), act)
        pixels = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
        out = activate(F.conv2d(pixels, self.weight[:, :, None, None], self.bias), act)
        return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


def _convolution_is_faster(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether torch gives a 1x1 convolution, but not a linear layer, to oneDNN: in training."""
    return (
        # First: the compiler cannot follow the number of threads, and would cut its graph there.
        not torch.compiler.is_compiling()
        and x.is_cpu
        and weight.is_cpu
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and torch.get_num_threads() > 1
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled('cpu')
        and torch.backends.mkldnn.is_available()
        and torch._C._get_mkldnn_enabled()
    )
