"""What a call allocates, and where its time goes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Operator:
    """One line of a profile.

    Attributes:
        name: the operator, such as ``aten::copy_``.
        calls: how often one call of the candidate runs it.
        milliseconds: its own time in one call, without that of the operators which it calls.
        share: of the time of all operators.
    """

    name: str
    calls: int
    milliseconds: float
    share: float


def peak_memory(call: Callable[[], Any], device: str) -> int:
    """The most bytes of tensors that one call has at a time, beyond those that exist before it.

    Weights and input are not among them, gradients and what is kept for them are. On CUDA it is
    the allocator's peak; on a CPU the running sum of allocations and frees that torch.profiler
    records, so memory that other libraries take for themselves is left out.

    Args:
        call: run once to warm up and once to be measured.
        device: where it runs.
    """
    call()
    if device.startswith('cuda'):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'trace.json')
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text())['traceEvents']
    changes = sorted(
        (event['ts'], event['args']['Bytes']) for event in events if event['name'] == '[memory]'
    )
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


def top_operators(call: Callable[[], Any], device: str, calls: int = 3) -> list[Operator]:
    """The operators of a call by the time that they themselves take, the longest first.

    Args:
        call: run once to warm up, then ``calls`` times.
        device: on CUDA the time is that of the kernels, else that of the CPU.
        calls: over how many the figures are averaged.
    """
    call()
    cuda = device.startswith('cuda')
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        for _ in range(calls):
            call()
    times = {
        event: event.self_device_time_total if cuda else event.self_cpu_time_total
        for event in profiler.key_averages()
    }
    whole = sum(times.values())
    operators = [
        Operator(event.key, round(event.count / calls), time / calls / 1e3, time / whole)
        for event, time in times.items()
    ]
    return sorted(operators, key=lambda operator: -operator.milliseconds)
