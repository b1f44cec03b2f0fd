"""How fast a machine can be, and how long a network must take on it at least."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lightvit_mm.benchmark.timing import alternate, summarise

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
# Rows, inner size and columns of matrix products: the MLPs of four stages with an input of
# 512 x 512. Beside them a square one that has nothing against it.
PRODUCTS = ((16384, 64, 256), (4096, 128, 512), (1024, 320, 1280), (256, 512, 2048))
SQUARE = {'cpu': 2048, 'cuda': 8192}
# Far beyond any cache.
COPIED_BYTES = 2**28
# Forward, gradient of the input, gradient of the weight: three products of the same three tensors.
TRAINING_PRODUCTS = 3


@dataclass(frozen=True)
class Ceilings:
    """What was measured of the machine.

    Attributes:
        gflops: billions of additions and multiplications a second of the fastest of the products.
        product: rows, inner size and columns of that one.
        copy_gb: billions of bytes a second that a copy reads and writes, both counted.
    """

    gflops: float
    product: str
    copy_gb: float


@dataclass(frozen=True)
class Floors:
    """The least time in seconds that a network can take, on two grounds.

    Attributes:
        compute: its multiply-accumulates at the speed of the fastest matrix product.
        memory: the bytes that its products (convolutions, matrix products, attention) read and
            write, each tensor once a product, at the speed of a copy. Norms, activations and sums
            are taken as part of the products. Where maps stay in the caches, less is possible.
    """

    compute: float
    memory: float

    @property
    def larger(self) -> float:
        """The one that binds."""
        return max(self.compute, self.memory)


def measure_ceilings(
    dtype: str = 'fp32', device: str = 'cpu', rounds: int = 5, min_seconds: float = 1.0
) -> Ceilings:
    """Time matrix products of a network's sizes, a square one, and a copy; medians count.

    Args:
        dtype: of the products, a key of `DTYPES`.
        device: where.
        rounds, min_seconds: see `alternate`.
    """
    side = SQUARE[device.split(':')[0]]
    options: dict[str, Any] = {'dtype': DTYPES[dtype], 'device': device}
    work, calls = {}, {}
    with torch.inference_mode(), _same_precision():
        for sizes in (*PRODUCTS, (side, side, side)):
            rows, inner, columns = sizes
            name = f'{rows}x{inner}x{columns}'
            work[name] = 2e-9 * rows * inner * columns
            calls[name] = _product(
                torch.rand(rows, inner, **options), torch.rand(inner, columns, **options)
            )
        source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device=device)
        target = torch.zeros_like(source)
        calls['copy'] = functools.partial(target.copy_, source)
        seconds = alternate(calls, rounds, min_seconds)
    median = {timing.name: timing.median for timing in summarise(seconds, 'copy')}
    rates = {name: gflop / median[name] for name, gflop in work.items()}
    fastest = max(rates, key=lambda name: rates[name])
    return Ceilings(rates[fastest], fastest, 2e-9 * COPIED_BYTES / median['copy'])


def count_bytes(model: nn.Module, x: torch.Tensor) -> int:
    """Bytes that the products of one forward pass read and write, see `Floors`.

    Under autocast the products work on 16 bits, and are counted so.
    """
    with torch.inference_mode(False), torch.no_grad(), _ProductBytes() as counter:
        model(x)
    return counter.total


def floors(macs: int, moved: int, ceilings: Ceilings, train: bool = False) -> Floors:
    """The least times of a pass.

    Args:
        macs: multiply-accumulates of the forward pass.
        moved: bytes of the forward pass, as `count_bytes` has them.
        ceilings: of the machine.
        train: forward and backward; three times the work.
    """
    passes = TRAINING_PRODUCTS if train else 1
    return Floors(passes * 2e-9 * macs / ceilings.gflops, passes * 1e-9 * moved / ceilings.copy_gb)


def _product(left: torch.Tensor, right: torch.Tensor) -> Callable[[], torch.Tensor]:
    # Into memory that is there already: what is to be seen is arithmetic.
    return functools.partial(torch.mm, left, right, out=left @ right)


class _ProductBytes(TorchDispatchMode):
    """Adds up the bytes of tensors that products get and give."""

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        # The registry lacks the fused attention of CPUs.
        if func._overloadpacket in flop_registry or 'scaled_dot_product' in str(func):
            tensors = [
                leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)
            ]
            self.total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return out


@contextmanager
def _same_precision() -> Iterator[None]:
    """Let products of float32 use TF32 on CUDA where convolutions may."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
