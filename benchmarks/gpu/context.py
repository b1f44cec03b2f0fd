"""What a part of the check is given, and how it hands over what it finds."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from gpu.record import Failure, Finding, Skipped
from lightvit_mm.errors import UserError


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Attributes:
        device: ``cuda`` or ``cpu``.
        quick: only see whether everything runs, at tiny sizes.
        nuclei: folder of a COCO data set with ``annotations/instances_{train,val}.json`` and
            ``images/{train,val}``, to train on too.
        cifar10: folder with ``train`` and ``test``, each with a folder of images for each class.
    """

    device: str
    quick: bool = False
    nuclei: str | None = None
    cifar10: str | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether there are CUDA's own measurements: graphs, kernels, memory."""
        return self.device == 'cuda'

    @property
    def half(self) -> str:
        """Data type of mixed precision."""
        return 'fp16' if self.on_gpu else 'bf16'

    @property
    def compiler(self) -> str:
        """Backend of ``torch.compile``."""
        return 'eager' if self.quick else 'inductor'


@dataclass(frozen=True)
class Begun:
    """A part starts with something; if it hangs, this is what hangs."""

    name: str


class Done:
    """A part has come to its end."""


Message = Finding | Begun | Done


@dataclass(frozen=True)
class Context:
    """The surroundings of a part in its process.

    Attributes:
        settings: what the user asked for.
        scratch: folder that lasts as long as the whole check.
        until: time of `time.monotonic` at which the process is stopped.
        send: hands over a message to the process that writes the files.
    """

    settings: Settings
    scratch: Path
    until: float
    send: Callable[[Message], None]

    def attempt(
        self, name: str, measure: Callable[[], Iterator[Finding]], seconds: float = 0.0
    ) -> None:
        """Hand over what a function finds; an error is a finding too.

        Args:
            name: what is measured.
            measure: yields the findings one by one.
            seconds: without that much time left it is skipped. With ``quick``, no time is needed.
        """
        left = self.until - time.monotonic()
        if left < seconds and not self.settings.quick:
            self.send(Skipped(name, f'{left:.0f} s left, about {seconds:.0f} s needed'))
            return
        self.send(Begun(name))
        try:
            for finding in measure():
                self.send(finding)
        except (UserError, torch.cuda.OutOfMemoryError) as error:
            self.send(Skipped(name, str(error)))
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f'{frame.filename}, line {frame.lineno}'
            self.send(Failure(name, f'{type(error).__name__}: {error} ({place})'))
            traceback.print_exc()  # whole in the log
        finally:
            gc.collect()
            if self.settings.on_gpu:
                torch.cuda.empty_cache()
