"""Comparing the speed of several ways to do the same thing.

A machine's load, clock and temperature change its speed from second to second by more than the
differences that matter here. So all candidates run in one process and take turns, one call each
per round; only their ratios within the same rounds are meaningful.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.benchmark import timer

# Enough for two digits of a 95% interval.
RESAMPLINGS = 2000


@dataclass(frozen=True)
class Timing:
    """Statistics of one candidate; times in seconds.

    Attributes:
        name: the candidate.
        rounds: number of timed calls.
        median: median time of a call.
        quartiles: first and third quartile of the times.
        ratio: median of the baseline over this median: 2 is twice as fast as the baseline.
        interval: 95% interval of ``ratio``, by resampling whole rounds (bootstrap).
    """

    name: str
    rounds: int
    median: float
    quartiles: tuple[float, float]
    ratio: float
    interval: tuple[float, float]

    @property
    def spread(self) -> float:
        """Distance between the quartiles over the median."""
        return (self.quartiles[1] - self.quartiles[0]) / self.median


def alternate(
    candidates: Mapping[str, Callable[[], Any]],
    rounds: int = 10,
    min_seconds: float = 0.0,
    warmup: int = 2,
    pause: float = 0.0,
    clock: Callable[[], float] = timer,
) -> dict[str, list[float]]:
    """Call the candidates in turn, each once per round, and time each call.

    Each round starts with the next candidate, so that none is always the first.

    Args:
        candidates: functions without arguments, by name. They should return their results, which
            are freed before the next call.
        rounds: least number of timed rounds.
        min_seconds: more rounds follow until the timed calls have taken that long in total.
        warmup: number of rounds before them that aren't timed.
        pause: seconds to sleep before each timed call.
        clock: returns seconds; the default first waits for pending CUDA work.

    Returns:
        The seconds of each call by candidate, in the order of the rounds.
    """
    if rounds < 1 or not candidates:
        raise ValueError(f'nothing to time: {len(candidates)} candidates, {rounds} rounds')
    for _ in range(warmup):
        for call in candidates.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    spent, done = 0.0, 0
    collecting = gc.isenabled()
    gc.disable()
    try:
        while done < rounds or spent < min_seconds:
            for name in order:
                time.sleep(pause)
                begin = clock()
                result = candidates[name]()
                seconds[name].append(clock() - begin)
                spent += seconds[name][-1]
                # Otherwise the next candidate would pay for freeing it, with both in memory.
                del result
            order.append(order.pop(0))
            done += 1
    finally:
        if collecting:
            gc.enable()
    return seconds


def summarise(seconds: Mapping[str, Sequence[float]], baseline: str) -> list[Timing]:
    """Compute the statistics of each candidate of `alternate`.

    Args:
        seconds: times of each candidate, all of the same number of rounds.
        baseline: the candidate that ratios refer to; its own is 1.
    """
    times = {name: np.asarray(values, dtype=float) for name, values in seconds.items()}
    rounds = len(times[baseline])
    # The same rounds for all, since a disturbance affects all candidates of a round.
    drawn = np.random.default_rng(0).integers(0, rounds, (RESAMPLINGS, rounds))
    reference = np.median(times[baseline][drawn], axis=1)
    timings = []
    for name, values in times.items():
        median = float(np.median(values))
        first, third = np.quantile(values, (0.25, 0.75))
        low, high = np.quantile(reference / np.median(values[drawn], axis=1), (0.025, 0.975))
        timings.append(
            Timing(
                name,
                rounds,
                median,
                (float(first), float(third)),
                float(np.median(times[baseline])) / median,
                (float(low), float(high)),
            )
        )
    return timings
