"""What only a GPU has: graphs and kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lightvit_mm.measure.profiling import top_operators

WARM_UP = 3


def kernels(call: Callable[[], Any], device: str) -> dict[str, Any]:
    """Cells of a table: kernels, copies and fills of a call on a GPU; operators on a CPU."""
    found = [each for each in top_operators(call, device) if each.milliseconds > 0]
    return {
        'launches': sum(each.calls for each in found),
        'kernels ms': sum(each.milliseconds for each in found),
        'longest': '; '.join(f'{each.name[:60]} {each.share:.0%}' for each in found[:3]),
    }


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
