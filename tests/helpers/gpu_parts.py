"""Parts of a GPU check that go wrong in known ways."""

import os
import signal
import time

from gpu.context import Context
from gpu.record import Check, Row
from gpu.running import Part


def find(context: Context, job: str) -> None:
    context.attempt('finding', lambda: iter([Check(f'found by {job or "it"}', 0.5, 1.0)]))


def hang(context: Context, job: str) -> None:
    find(context, job)

    def measure():
        yield Row('process', {'id': os.getpid()})
        time.sleep(3600)

    context.attempt('a compiler', measure)


def die(context: Context, job: str) -> None:
    find(context, job)
    os.kill(os.getpid(), signal.SIGKILL)


def miss(context: Context, job: str) -> None:
    context.attempt('finding', lambda: iter([Check('a wrong kernel', 2.0, 1.0)]))


def raises(context: Context, job: str) -> None:
    def measure():
        yield Check('before', 0.0, 1.0)
        raise RuntimeError('no kernel image')

    context.attempt('a launch', measure)
    find(context, job)


def part(function, weight: float = 1.0, jobs: tuple[str, ...] = ('',)) -> Part:
    return Part(function.__name__, f'{__name__}:{function.__name__}', weight, jobs)
