"""Whether a device computes what double precision on the CPU computes."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from lightvit_mm.backbones import PyramidBackbone
from lightvit_mm.benchmark.forms import timm_models
from lightvit_mm.benchmark.subjects import Subject, variants
from lightvit_mm.errors import UserError
from lightvit_mm.gpu_check import operators
from lightvit_mm.gpu_check.context import Context
from lightvit_mm.gpu_check.record import Check, Finding, Row, Skipped
from lightvit_mm.measure.limits import DTYPES, tf32
from lightvit_mm.timm_import import import_timm

# Outputs: largest difference in standard deviations of the level. Gradients: norm of the
# difference over the norm.
FORWARD, GRADIENT = 1e-4, 1e-3
# In lower precision, the error may be this many times that of timm's model: of the same network, or
# of another one where timm does not have it.
TIMES_SAME, TIMES_OTHER = 1.5, 3.0
# timm's models of the same kind as those that it does not have: of one, and of all others.
KINDS = {'repvit_m0_6': 'repvit_m0_9'}
HYBRID = 'mobilevit_xs'
# Of float16 losses, as mmengine and torch start; it falls until all gradients are finite.
SCALE = 2.0**16

Levels = Sequence[torch.Tensor]
Size = tuple[int, int]


@dataclass(frozen=True)
class Form:
    """A way to compute.

    Attributes:
        dtype: a key of `DTYPES`; below fp32 by autocast.
        layout: memory layout of the image.
        tf32: whether float32 products and convolutions may use TF32.
    """

    dtype: str = 'fp32'
    layout: torch.memory_format = torch.contiguous_format
    tf32: bool = False

    @property
    def name(self) -> str:
        """Name in the results."""
        names = ['TF32' if self.tf32 else self.dtype]
        return ' '.join(names + ['channels_last'] * (self.layout is torch.channels_last))

    @property
    def is_exact(self) -> bool:
        """Whether the results are those of single precision."""
        return self.dtype == 'fp32' and not self.tf32

    @contextmanager
    def active(self, device: str) -> Iterator[None]:
        """Compute in this way."""
        with ExitStack() as stack:
            stack.enter_context(tf32(self.tf32, self.tf32))
            if self.dtype != 'fp32':
                stack.enter_context(torch.autocast(device, DTYPES[self.dtype]))
            yield


EXACT = Form()
LOW = [
    Form('bf16', torch.channels_last),
    Form('fp16', torch.channels_last),
    Form(tf32=True),
]


def run(context: Context, job: str) -> None:
    """Check a family's variants, or mmcv's operators.

    Args:
        context: the surroundings.
        job: a key of `FAMILIES`, or ``operators``.
    """
    device, quick = context.settings.device, context.settings.quick
    if job == 'operators':
        for name, check in operators.CHECKS.items():
            context.attempt(name, partial(check, device))
        return
    own = [each for name, each in variants().items() if name.startswith(f'{job}_')]
    # At a stride of 64, a smaller image would leave too few places to normalise over.
    size = (64, 96) if quick and job != 'efficientvit' else (224, 288)
    smallest = own[0]
    for subject in own[:1] if quick else own:
        context.attempt(subject.name, partial(check_backbone, subject, device, size), 5)
    # Last, since a compiler can take all the time that there is.
    compiler = 'eager' if quick else 'inductor'
    for dynamic in (False, True):
        check = partial(check_compiled, smallest, device, size, compiler, dynamic)
        context.attempt(f'{smallest.name} compiled, dynamic={dynamic}', check, 20)


def check_backbone(subject: Subject, device: str, size: Size) -> Iterator[Finding]:
    """Compare a backbone on a device with double precision on the CPU, in several forms.

    In single precision, the limits are `FORWARD` and `GRADIENT`, or four times the deviation of
    the CPU's own single precision where that is larger. In lower precision, they are `TIMES_SAME`
    times the errors of timm's model of that name on the same device, or `TIMES_OTHER` times those
    of another of its models.

    Args:
        subject: the backbone.
        device: ``cpu`` or ``cuda``.
        size: height and width of the two images.
    """
    torch.manual_seed(0)
    ours = Compared(subject.build(), torch.randn(2, 3, *size), device)
    peer, peer_name = _timm_peer(subject.name, size, device)
    times = TIMES_SAME if peer_name == subject.name else TIMES_OTHER
    own = ours.errors(EXACT, ours.copy())
    for form in (EXACT, Form(layout=torch.channels_last)):
        errors, name = ours.errors(form), f'{subject.name} {form.name}'
        yield Check(f'{name} outputs', errors.largest, max(FORWARD, 4 * own.largest))
        yield Check(f'{name} gradients', errors.gradients, max(GRADIENT, 4 * own.gradients))
    for form in LOW:
        name = f'{subject.name} {form.name}'
        if form.tf32 and device == 'cpu':
            yield Skipped(name, 'a CPU has no TF32')
        elif peer is None:
            yield Skipped(name, 'timm is not there to compare with')
        else:
            errors, allowed = ours.errors(form), peer.errors(form)
            cells: dict[str, Any] = {'backbone': subject.name, 'form': form.name}
            cells |= {'outputs': errors.rms, 'gradients': errors.gradients, 'timm': peer_name}
            cells |= {"timm's outputs": allowed.rms, "timm's gradients": allowed.gradients}
            yield Row('Errors of lower precision', cells)
            yield Check(f'{name} outputs', errors.rms, times * allowed.rms)
            yield Check(f'{name} gradients', errors.gradients, times * allowed.gradients)
    yield from _check_deploy(subject.name, ours, peer, times)


def check_compiled(
    subject: Subject, device: str, size: Size, compiler: str, dynamic: bool
) -> Iterator[Finding]:
    """Compare a compiled backbone, outputs and gradients, with double precision on the CPU.

    Args:
        subject, device, size: see `check_backbone`.
        compiler: backend of torch.compile.
        dynamic: compile for all sizes, and try another one too.
    """
    torch.manual_seed(0)
    torch.compiler.reset()
    network = subject.build()
    compiled: Any = None
    sizes = [size, (size[0] + 64, size[1] - 32)] if dynamic else [size]
    begin = time.perf_counter()
    for each in sizes:
        ours = Compared(network, torch.randn(2, 3, *each), device)
        if compiled is None:
            compiled = ours.copy().to(device)
            compiled.compile(backend=compiler, dynamic=dynamic)
        compiled.load_state_dict(ours.model.state_dict())
        own, errors = ours.errors(EXACT, ours.copy()), ours.errors(EXACT, compiled)
        name = f'{subject.name} compiled, dynamic={dynamic}, {each[0]}x{each[1]}'
        yield Check(f'{name} outputs', errors.largest, max(FORWARD, 4 * own.largest))
        yield Check(f'{name} gradients', errors.gradients, max(GRADIENT, 4 * own.gradients))
    cells = {'backbone': subject.name, 'dynamic': dynamic, 'seconds': time.perf_counter() - begin}
    yield Row('Compiling a training step, and checking it', cells)


def _check_deploy(
    name: str, ours: Compared, peer: Compared | None, times: float
) -> Iterator[Finding]:
    """Compare the form for inference."""
    expected = ours.evaluated()
    limit = max(FORWARD, 4 * _largest(ours.deployed(EXACT, ours.copy()), expected))
    for form in (EXACT, Form(layout=torch.channels_last), *LOW):
        what = f'{name} deploy form, {form.name}'
        if form.is_exact:
            yield Check(what, _largest(ours.deployed(form), expected), limit)
        elif peer is not None and not (form.tf32 and ours.device == 'cpu'):
            allowed = times * _rms(peer.deployed(form), peer.evaluated())
            yield Check(what, _rms(ours.deployed(form), expected), allowed)


@dataclass(frozen=True)
class Errors:
    """Deviations of a training step from double precision.

    Attributes:
        largest: of the outputs, the largest difference in standard deviations of the level.
        rms: of the outputs, the root mean square of it.
        gradients: norm of the difference of all gradients over their norm.
    """

    largest: float
    rms: float
    gradients: float


class Compared:
    """A network, and what double precision makes of it.

    Args:
        model: the network, which gets weights of usual sizes and loses its dropout. How far low
            precision is off depends on the weights, so all that are compared need the same kind.
        image: (N, 3, H, W), on the CPU.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, model: nn.Module, image: torch.Tensor, device: str) -> None:
        self.model, self.image, self.device = model.train(), image, device
        _randomise(model)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.levels, self.gradients = _step(copy.deepcopy(model).double(), image.double())
        with torch.no_grad():
            model(image)  # for the statistics of the norms

    def copy(self) -> Any:
        """The network, to be changed."""
        return copy.deepcopy(self.model)

    def errors(self, form: Form, model: Any = None) -> Errors:
        """Compute a training step.

        Args:
            form: how to compute.
            model: a copy of the network; without, one on the device that is checked.
        """
        model = self.copy().to(self.device) if model is None else model
        device = next(model.parameters()).device
        image = self.image.to(device, memory_format=form.layout)
        with form.active(device.type):
            scale = SCALE if form.dtype == 'fp16' else 1.0
            levels, gradients = _step(model, image, scale)
            while not gradients.isfinite().all() and scale > 1:
                scale /= 4
                levels, gradients = _step(model, image, scale)
        return Errors(
            _largest(levels, self.levels),
            _rms(levels, self.levels),
            ((gradients - self.gradients).norm() / self.gradients.norm()).item(),
        )

    def deployed(self, form: Form, model: Any = None) -> Levels:
        """The outputs for inference, folded where the network can be; arguments as in `errors`."""
        model = self.copy().to(self.device) if model is None else model
        model.eval()
        if isinstance(model, PyramidBackbone):
            model.switch_to_deploy()
        device = next(model.parameters()).device
        image = self.image.to(device, memory_format=form.layout)
        with torch.no_grad(), form.active(device.type):
            return [level.cpu() for level in model(image)]

    @torch.no_grad()
    def evaluated(self) -> Levels:
        """The outputs for inference in double precision, as the network is."""
        return self.copy().double().eval()(self.image.double())


def _timm_peer(name: str, size: Size, device: str) -> tuple[Compared | None, str]:
    """timm's model to compare a backbone with, and its name."""
    try:
        timm = import_timm()
    except UserError:
        return None, ''
    if name not in timm.list_models():
        name = KINDS.get(name, HYBRID)
    model = timm_models(name, train=True)['']
    return Compared(model, torch.randn(2, 3, *size), device), name


@torch.no_grad()
def _randomise(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.7 / parameter[0].numel() ** 0.5)
        elif name.endswith('weight'):
            parameter.normal_(1, 0.1)
        else:
            parameter.normal_(std=0.1)


def _step(model: nn.Module, image: torch.Tensor, scale: float = 1.0) -> tuple[Levels, torch.Tensor]:
    """The outputs and all gradients of a training step, in double precision on the CPU."""
    levels = model(image)
    # The mean itself would have no gradient after a final norm.
    loss = sum(level.double().square().mean() for level in levels)
    (scale * loss).backward()
    gradients = [_gradient(parameter) / scale for parameter in model.parameters()]
    model.zero_grad(set_to_none=True)
    return [level.detach().cpu().double() for level in levels], torch.cat(gradients)


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return gradient.cpu().double().flatten()


def _largest(outputs: Levels, expected: Levels) -> float:
    return max(
        ((a.double() - b).abs().max() / b.std()).item()
        for a, b in zip(outputs, expected, strict=True)
    )


def _rms(outputs: Levels, expected: Levels) -> float:
    return max(
        ((a.double() - b).square().mean().sqrt() / b.std()).item()
        for a, b in zip(outputs, expected, strict=True)
    )
