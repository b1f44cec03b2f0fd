"""Peak memory of a call, and its time by operator."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Operator:
    """One line of a profile.

    Attributes:
        name: the operator, e.g. ``aten::copy_``.
        calls: how often it runs per profiled call.
        milliseconds: its own time per profiled call, without the operators that it calls.
        share: its share of the time of all operators.
    """

    name: str
    calls: int
    milliseconds: float
    share: float


def peak_memory(call: Callable[[], Any], device: str) -> int:
    """Most bytes of tensors that one call holds at a time, beyond those that existed before it.

    Gradients and the activations kept for them count, weights and input don't. On CUDA this is
    the allocator's peak; on a CPU the running sum of the allocations and frees that torch.profiler
    records, without memory that other libraries allocate themselves.

    Args:
        call: the function, called once to warm up and once to measure.
        device: the device it runs on.
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
    """The operators of a call, sorted by their own time, the longest first.

    Args:
        call: the function, called once to warm up and then ``calls`` times.
        device: on CUDA, times are those of kernels; otherwise of the CPU.
        calls: number of calls to average over.
    """
    call()
    cuda = device.startswith('cuda')
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        for _ in range(calls):
            call()
    times = {
        event: event.self_device_time_total if cuda else event.self_cpu_time_total
        for event in profiler.key_averages()
        # Not the calls that launch kernels (cudaLaunchKernel), nor the names of what they are for.
        if not cuda or (event.device_type == DeviceType.CUDA and not event.is_user_annotation)
    }
    whole = sum(times.values())
    operators = [
        Operator(event.key, round(event.count / calls), time / calls / 1e3, time / whole)
        for event, time in times.items()
    ]
    return sorted(operators, key=lambda operator: -operator.milliseconds)
