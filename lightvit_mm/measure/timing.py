"""Comparing the speed of several ways to do the same thing.

What else a machine does, its clock and its temperature change from second to second by more than
the differences that matter here. So all candidates live in one process and take turns, one call
each a round; only their ratios within the same rounds say something.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.benchmark import timer

# Enough for two digits of a 95 % interval.
RESAMPLINGS = 2000


@dataclass(frozen=True)
class Timing:
    """What the rounds say of one candidate; times in seconds.

    Attributes:
        name: the candidate.
        rounds: number of timed calls.
        median: of the calls.
        quartiles: the first and the third, between which half of the calls lie.
        ratio: median of the baseline over this median: 2 is twice as fast as the baseline.
        interval: 95 % interval of ``ratio``, by drawing whole rounds anew.
    """

    name: str
    rounds: int
    median: float
    quartiles: tuple[float, float]
    ratio: float
    interval: tuple[float, float]

    @property
    def spread(self) -> float:
        """Distance of the quartiles over the median."""
        return (self.quartiles[1] - self.quartiles[0]) / self.median


def alternate(
    candidates: Mapping[str, Callable[[], Any]],
    rounds: int = 10,
    min_seconds: float = 0.0,
    warmup: int = 2,
    pause: float = 0.0,
    clock: Callable[[], float] = timer,
) -> dict[str, list[float]]:
    """Call the candidates in turn, each once a round, and time each call.

    Every round begins with the next candidate, so that none always has the same place.

    Args:
        candidates: names to functions of no argument, which should return what they compute: it
            is dropped before the next call.
        rounds: the fewest timed rounds.
        min_seconds: go on with further rounds until the timed calls have taken so long together.
        warmup: rounds before them that aren't timed.
        pause: seconds of rest in front of each timed call.
        clock: seconds; the default waits for the work that CUDA still has.

    Returns:
        The seconds of each call, one list a candidate, in the order of the rounds.
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
                # Freed here, or the next candidate would pay for it and keep both in memory.
                del result
            order.append(order.pop(0))
            done += 1
    finally:
        if collecting:
            gc.enable()
    return seconds


def summarise(seconds: Mapping[str, Sequence[float]], baseline: str) -> list[Timing]:
    """The figures of each candidate of `alternate`.

    Args:
        seconds: the calls of each candidate; all of the same number of rounds.
        baseline: the candidate that ratios refer to; its own is 1.
    """
    times = {name: np.asarray(values, dtype=float) for name, values in seconds.items()}
    rounds = len(times[baseline])
    # The same rounds for all: what disturbed a round disturbed its neighbours alike.
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
