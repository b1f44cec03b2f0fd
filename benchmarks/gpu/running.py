"""Running the parts of the check, each in processes of its own that can be stopped."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from gpu.context import Begun, Context, Done, Message, Settings
from gpu.record import LOG, Failure, PartResult, Report, Skipped, check_folder
from lightvit_mm.backbones.families import FAMILIES
from lightvit_mm.benchmark.report import machine
from lightvit_mm.measure.load import usable_cores

# A process of its own imports everything, which takes some seconds; with less, a part is skipped.
LEAST_SECONDS = 20.0
PROCESSES = multiprocessing.get_context('spawn')  # CUDA does not survive a fork


@dataclass(frozen=True)
class Part:
    """A part of the check.

    Attributes:
        title: its heading.
        run: ``module:function`` that takes a `Context` and the name of a job.
        weight: its share of the time, in seconds of ten minutes. What a part leaves over goes to
            those after it.
        jobs: what runs in a process of its own, as many at a time as there are cores for.
    """

    title: str
    run: str
    weight: float
    jobs: tuple[str, ...] = ('',)


TRAININGS = ('shapes', 'nuclei')
# The most important first.
PARTS = {
    'correct': Part('Outputs and gradients', 'gpu.correct:run', 110, ('operators', *FAMILIES)),
    'training': Part('A real training', 'gpu.training:run', 185, TRAININGS),
    'steps': Part('Training steps of detectors', 'gpu.steps:run', 75),
    'backbones': Part('Backbones beside others', 'gpu.backbones:run', 90),
    'inference': Part('Inference of detectors', 'gpu.inference:run', 45),
    'classify': Part('Classification of small images', 'gpu.classify:run', 65),
    'rest': Part('The rest of the training', 'gpu.training:run', 30, TRAININGS),
}


def check_gpu(
    settings: Settings,
    folder: str,
    minutes: float,
    names: Sequence[str] | None = None,
    parts: dict[str, Part] | None = None,
    say: Callable[[str], None] = print,
) -> Report:
    """Run the parts one after the other, and write what they find as soon as they find it.

    A part that fails, ends or hangs leaves what it found, and the others run all the same.

    Args:
        settings: what to run it with.
        folder: folder of the files.
        minutes: time for all of it.
        names: the parts to run; all without.
        parts: the parts that there are; `PARTS` without.
        say: shows a line to the user.

    Raises:
        UserError: a file cannot be written.
    """
    parts = PARTS if parts is None else parts
    chosen = {name: part for name, part in parts.items() if not names or name in names}
    check_folder(Path(folder))
    report = Report(
        Path(folder),
        shlex.join(['python', *sys.argv]),
        machine(settings.device),
        [PartResult(name, part.title) for name, part in chosen.items()],
    )
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, LOG).write_text(f'== {report.command}\n')
    report.write()
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix='gpu_check-') as scratch:
        for number, result in enumerate(report.parts):
            weights = [part.weight for part in list(chosen.values())[number:]]
            begin = time.monotonic()
            seconds = (end - begin) * weights[0] / sum(weights)
            say(f'== {result.title}, at most {max(seconds, 0.0):.0f} s')
            if seconds < LEAST_SECONDS:
                result.state = f'not run: {max(seconds, 0.0):.0f} s were left for it'
            else:
                result.state = 'running'
                send = partial(_add, result, say)
                context = Context(settings, Path(scratch), begin + seconds, send)
                _run_part(chosen[result.name], context, result, report)
            result.seconds = time.monotonic() - begin
            report.write()
            say(f'{result.state}, {result.seconds:.0f} s')
    return report


def _add(result: PartResult, say: Callable[[str], None], finding: Any) -> None:
    result.findings.append(finding)
    say(str(finding))


class _Worker:
    """A process that does one job of a part."""

    def __init__(self, part: Part, job: str, context: Context, log: Path, threads: int) -> None:
        self.job = job
        self.doing = ''
        self.finished = False
        self.receiver, sender = PROCESSES.Pipe(duplex=False)
        arguments = (replace(context, send=sender.send), part.run, job, log, threads)
        self.process = PROCESSES.Process(target=_work, args=arguments)
        self.process.start()
        sender.close()

    def receive(self) -> Iterable[Message]:
        """The messages that have arrived."""
        with suppress(EOFError, OSError):
            while self.receiver.poll():
                yield self.receiver.recv()

    def stop(self) -> None:
        """End the process with all that it started."""
        pid = self.process.pid
        assert pid is not None
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        self.process.kill()  # if it has no group yet
        self.process.join()
        self.receiver.close()


def _run_part(part: Part, context: Context, result: PartResult, report: Report) -> None:
    begin = time.monotonic()
    cores = len(usable_cores())
    slots = min(len(part.jobs), max(cores // 2, 1))
    waiting, workers = list(part.jobs), list[_Worker]()

    try:
        while waiting or workers:
            while waiting and len(workers) < slots:
                log, threads = report.folder / LOG, max(cores // slots, 1)
                workers.append(_Worker(part, waiting.pop(0), context, log, threads))
            left = context.until - time.monotonic()
            if left <= 0:
                break
            # Not longer, since a process that it started may keep the pipe of an ended one open.
            wait([worker.receiver for worker in workers], min(left, 1.0))
            known = len(result.findings)
            for worker in list(workers):
                ended = not worker.process.is_alive()
                for message in worker.receive():
                    if isinstance(message, Begun):
                        worker.doing = message.name
                    elif isinstance(message, Done):
                        worker.finished = True
                    else:
                        context.send(message)
                if worker.finished or ended:
                    if not worker.finished:
                        worker.process.join(5.0)
                        status = worker.process.exitcode
                        name = worker.doing or worker.job or result.name
                        error = f'its process ended with status {status}, see {LOG}'
                        context.send(Failure(name, error))
                    worker.stop()
                    workers.remove(worker)
            if len(result.findings) > known:
                result.seconds = time.monotonic() - begin
                report.write()
        result.state = 'done'
        for worker in workers:
            result.state = 'stopped at the end of its time'
            name = worker.doing or worker.job or result.name
            context.send(Failure(name, f'was stopped after {time.monotonic() - begin:.0f} s'))
        for job in waiting:
            context.send(Skipped(job, 'no time was left'))
    except BaseException:
        result.state = 'interrupted'
        report.write()
        raise
    finally:
        for worker in workers:
            worker.stop()


def _work(context: Context, run: str, job: str, log: Path, threads: int) -> None:
    """What a process of a part does."""
    os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    output = log.open('a', buffering=1)
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)  # for the processes that it starts
    sys.stdout = sys.stderr = output
    print(f'== {run} {job}')
    torch.set_num_threads(threads)
    os.environ.setdefault('TORCHINDUCTOR_COMPILE_THREADS', str(threads))
    module, _, function = run.partition(':')
    getattr(importlib.import_module(module), function)(context, job)
    context.send(Done())


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)
