"""How fast a machine is at best, and how long a network must at least take on it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lightvit_mm.measure.timing import alternate, summarise

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
# Rows, inner size and columns of matrix products: those of the MLPs of four stages with an input of
# 512 x 512. In addition, the side of a large square one, whose shape is the most favourable.
PRODUCTS = ((16384, 64, 256), (4096, 128, 512), (1024, 320, 1280), (256, 512, 2048))
SQUARE = {'cpu': 2048, 'cuda': 8192}
# Far beyond any cache.
COPIED_BYTES = 2**28
# Forward, gradient of the input, gradient of the weight: products of the same size.
TRAINING_PRODUCTS = 3


@dataclass(frozen=True)
class Ceilings:
    """The measured speed of a machine.

    Attributes:
        gflops: billions of additions and multiplications per second of the fastest product.
        product: rows, inner size and columns of that product.
        copy_gb: billions of bytes per second of a copy, read and written bytes added.
    """

    gflops: float
    product: str
    copy_gb: float


@dataclass(frozen=True)
class Floors:
    """Two lower bounds of the time that a network takes, in seconds.

    Attributes:
        compute: its multiply-accumulates at the speed of the fastest matrix product.
        memory: the bytes that its products (convolutions, matrix products, attention) read and
            write, each tensor once per product in the form's data type, at the speed of a copy.
            Norms, activations and sums count as part of a product. A network whose maps stay in
            the caches can be faster.
    """

    compute: float
    memory: float

    @property
    def larger(self) -> float:
        """The bound that applies."""
        return max(self.compute, self.memory)


@contextmanager
def tf32(products: bool, convolutions: bool) -> Iterator[None]:
    """Allow or forbid TF32 for float32 matrix products and convolutions on CUDA."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = products
    torch.backends.cudnn.allow_tf32 = convolutions
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def measure_ceilings(
    dtype: str = 'fp32', device: str = 'cpu', rounds: int = 5, min_seconds: float = 1.0
) -> Ceilings:
    """Measure the median speed of matrix products and of a copy.

    Args:
        dtype: data type of the products, a key of `DTYPES`.
        device: the device to measure.
        rounds, min_seconds: see `alternate`.
    """
    side = SQUARE[device.split(':')[0]]
    options: dict[str, Any] = {'dtype': DTYPES[dtype], 'device': device}
    work, calls = {}, {}
    # The products may use TF32 if the network's convolutions do.
    same = torch.backends.cudnn.allow_tf32
    with torch.inference_mode(), tf32(same, same):
        for sizes in (*PRODUCTS, (side, side, side)):
            rows, inner, columns = sizes
            name = f'{rows}x{inner}x{columns}'
            work[name] = 2e-9 * rows * inner * columns
            left, right = torch.rand(rows, inner, **options), torch.rand(inner, columns, **options)
            calls[name] = _product(left, right)
            if device == 'cpu':
                # On the CPU, convolutions use another library than matrix products.
                work[f'{name} convolved'] = work[name]
                calls[f'{name} convolved'] = _convolution(left, right)
        source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device=device)
        target = torch.zeros_like(source)
        calls['copy'] = functools.partial(target.copy_, source)
        seconds = alternate(calls, rounds, min_seconds)
    median = {timing.name: timing.median for timing in summarise(seconds, 'copy')}
    rates = {name: gflop / median[name] for name, gflop in work.items()}
    fastest = max(rates, key=lambda name: rates[name])
    return Ceilings(rates[fastest], fastest, 2e-9 * COPIED_BYTES / median['copy'])


@torch.no_grad()
def count_moved(model: nn.Module, shape: Sequence[int]) -> int:
    """Count the numbers that the products of one forward pass read and write, see `Floors`.

    Attention counts as one product on every device: queries, keys, values (and a bias) in, one map
    out. Only shapes are computed, as in `count_macs`.

    Args:
        model: the network, in training or deploy form.
        shape: (N, 3, H, W) of its input.
    """
    shapes_only = copy.deepcopy(model).eval().to('meta')
    with _Moved() as counter, _Attention(counter):
        shapes_only(torch.zeros(*shape, device='meta'))
    return counter.total


def floors(macs: int, moved: int, dtype: str, ceilings: Ceilings, train: bool = False) -> Floors:
    """The least times of one step.

    Args:
        macs: multiply-accumulates of the forward pass.
        moved: `count_moved` of the forward pass.
        dtype: data type, a key of `DTYPES`.
        ceilings: limits of the machine.
        train: forward and backward, three times the work.
    """
    passes = TRAINING_PRODUCTS if train else 1
    return Floors(
        passes * 2e-9 * macs / ceilings.gflops,
        passes * 1e-9 * moved * DTYPES[dtype].itemsize / ceilings.copy_gb,
    )


def _convolution(left: torch.Tensor, right: torch.Tensor) -> Callable[[], torch.Tensor]:
    pixels = left.T[None, :, :, None].contiguous(memory_format=torch.channels_last)
    kernel = right.T[:, :, None, None].contiguous()
    return functools.partial(F.conv2d, pixels, kernel)


def _product(left: torch.Tensor, right: torch.Tensor) -> Callable[[], torch.Tensor]:
    # Allocated in advance, so that only arithmetic is timed.
    return functools.partial(torch.mm, left, right, out=left @ right)


class _Moved(TorchDispatchMode):
    """Adds up the sizes of the inputs and outputs of products."""

    total = 0
    paused = False

    def add(self, tensors: Any) -> None:
        """Count every tensor in nested arguments."""
        leaves = tree_leaves(tensors)
        self.total += sum(leaf.numel() for leaf in leaves if isinstance(leaf, torch.Tensor))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry and not self.paused:
            self.add((args, kwargs, out))
        return out


class _Attention(TorchFunctionMode):
    """Counts attention as one product, before it is decomposed."""

    def __init__(self, counter: _Moved) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.counter.paused = True
        out = func(*args, **(kwargs or {}))
        self.counter.paused = False
        self.counter.add((args, kwargs, out))
        return out
