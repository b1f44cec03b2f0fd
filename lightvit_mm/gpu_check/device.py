"""What only a GPU has: graphs, kernels, and a memory of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lightvit_mm.measure.profiling import top_operators

WARM_UP = 3


def peak_megabytes(call: Callable[[], Any], device: str) -> float | None:
    """Most memory that tensors take during a call, with those that were there; None on a CPU."""
    if device == 'cpu':
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e6


@dataclass(frozen=True)
class Kernels:
    """What a call makes the device do.

    Attributes:
        launches: number of kernels, copies and fills on a GPU; of operators on a CPU.
        milliseconds: their time in total.
        longest: the names of those that take the most time, with their share.
    """

    launches: int
    milliseconds: float
    longest: str


def kernels(call: Callable[[], Any], device: str) -> Kernels:
    """Profile a call."""
    found = [each for each in top_operators(call, device) if each.milliseconds > 0]
    return Kernels(
        sum(each.calls for each in found),
        sum(each.milliseconds for each in found),
        '; '.join(f'{each.name[:60]} {each.share:.0%}' for each in found[:3]),
    )


def graphed(call: Callable[[torch.Tensor], Any], image: torch.Tensor) -> Callable[..., Any]:
    """Capture a function of an image as a CUDA graph; on a CPU, it stays as it is.

    Args:
        call: the function, without random numbers and without decisions that depend on values.
        image: an image of the only size that the result takes.

    Returns:
        A function that copies an image into the graph's own and replays it. The next call
        overwrites what it returned.
    """
    if image.device.type == 'cpu':
        return call
    own = image.clone()
    # The first calls choose algorithms and take memory, which a graph must not.
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            call(own)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call(own)

    def replay(image: torch.Tensor) -> Any:
        own.copy_(image)
        graph.replay()
        return result

    return replay
