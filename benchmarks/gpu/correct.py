"""Whether a device computes what double precision on the CPU computes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from gpu import operators
from gpu.context import Context
from gpu.record import Check, Finding, Row, Skipped
from lightvit_mm.backbones import PyramidBackbone
from lightvit_mm.benchmark.forms import timm_models
from lightvit_mm.benchmark.subjects import Subject, variants
from lightvit_mm.errors import UserError
from lightvit_mm.measure.limits import DTYPES, tf32

# Outputs: largest difference in standard deviations of the level. Gradients: norm of the
# difference over the norm.
FORWARD, GRADIENT = 1e-4, 1e-3
TIMES = 1.5  # the error of lower precision over that of what it is compared with
# fp16 and TF32 round 8 times as finely as bf16: on a CPU, fp16's errors were 0.10 to 0.14 of it.
FINER = 0.15
# Of float16 losses, as mmengine and torch start; it falls until all gradients are finite.
SCALE = 2.0**16

Levels = Sequence[torch.Tensor]
Size = tuple[int, int]


@dataclass(frozen=True)
class Form:
    """A way to compute: a key of `DTYPES`, by autocast below fp32, and the layout of the image."""

    dtype: str = 'fp32'
    layout: torch.memory_format = torch.contiguous_format
    tf32: bool = False

    @property
    def name(self) -> str:
        """Name in the results."""
        names = ['TF32' if self.tf32 else self.dtype]
        return ' '.join(names + ['channels_last'] * (self.layout is torch.channels_last))

    @contextmanager
    def active(self, device: str) -> Iterator[None]:
        """Compute in this way."""
        with ExitStack() as stack:
            stack.enter_context(tf32(self.tf32, self.tf32))
            if self.dtype != 'fp32':
                stack.enter_context(torch.autocast(device, DTYPES[self.dtype]))
            yield


FULL = (Form(), Form(layout=torch.channels_last))
LOW = (Form('bf16', torch.channels_last), Form('fp16', torch.channels_last), Form(tf32=True))


def run(context: Context, job: str) -> None:
    """Check the variants of a family, or ``operators``: mmcv's."""
    device, quick = context.settings.device, context.settings.quick
    if job == 'operators':
        for name, check in operators.CHECKS.items():
            context.attempt(name, partial(check, device))
        return
    own = [each for name, each in variants().items() if name.startswith(f'{job}_')]
    # At a stride of 64, a smaller image would leave too few places to normalise over.
    size = (64, 96) if quick and job != 'efficientvit' else (224, 288)
    for subject in own[:1] if quick else own:
        context.attempt(subject.name, partial(check_backbone, subject, device, size), 5)
    # Last, since a compiler can take all the time that there is.
    for dynamic in (False, True):
        compiler = context.settings.compiler
        check = partial(check_compiled, own[0], device, size, compiler, dynamic)
        context.attempt(f'{own[0].name} compiled, dynamic={dynamic}', check, 20)


def check_backbone(subject: Subject, device: str, size: Size) -> Iterator[Finding]:
    """Compare a backbone on a device with double precision on the CPU, in several forms.

    In single precision, the limits are `FORWARD` and `GRADIENT`, or four times the deviation of
    the CPU's own single precision where that is larger. In lower precision, they are `TIMES` the
    errors of timm's model of that name on the same device or, where timm has none, of the backbone
    itself in bf16 on the CPU, of which fp16 and TF32 may have `FINER`.
    """
    torch.manual_seed(0)
    ours = Compared(subject.build(), torch.randn(2, 3, *size), device)
    other, other_name = _timm_model(subject.name, size, device), 'timm'
    if other is None and device != 'cpu':
        other, other_name = ours.on_cpu(), 'itself in bf16 on the CPU'
    own = ours.on_cpu().errors(FULL[0])
    deployed, on_cpu = ours.evaluated(), ours.on_cpu().deployed(FULL[0])
    for form in FULL:
        errors, name = ours.errors(form), f'{subject.name} {form.name}'
        yield Check(f'{name} outputs', errors.largest, max(FORWARD, 4 * own.largest))
        yield Check(f'{name} gradients', errors.gradients, max(GRADIENT, 4 * own.gradients))
        limit = max(FORWARD, 4 * largest(on_cpu, deployed))
        yield Check(f'{name} deploy form', largest(ours.deployed(form), deployed), limit)
    for form in LOW:
        name = f'{subject.name} {form.name}'
        if form.tf32 and device == 'cpu':
            yield Skipped(name, 'a CPU has no TF32')
        elif other is None:
            yield Skipped(name, "the CPU's is what others are compared with where timm has none")
        else:
            itself = other_name != 'timm'
            theirs, times = LOW[0] if itself else form, TIMES
            if itself and form != LOW[0]:
                times *= FINER
            errors, allowed = ours.errors(form), other.errors(theirs)
            cells: dict[str, Any] = {'backbone': subject.name, 'form': form.name}
            cells |= {'outputs': errors.rms, 'gradients': errors.gradients}
            cells |= {'compared with': other_name, 'its outputs': allowed.rms}
            yield Row('Errors of lower precision', cells | {'its gradients': allowed.gradients})
            yield Check(f'{name} outputs', errors.rms, times * allowed.rms)
            yield Check(f'{name} gradients', errors.gradients, times * allowed.gradients)
            limit = times * rms(other.deployed(theirs), other.evaluated())
            yield Check(f'{name} deploy form', rms(ours.deployed(form), deployed), limit)


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
            compiled = copy.deepcopy(network).to(device)
            compiled.compile(backend=compiler, dynamic=dynamic)
        compiled.load_state_dict(network.state_dict())
        own, errors = ours.on_cpu().errors(FULL[0]), ours.errors(FULL[0], compiled)
        name = f'{subject.name} compiled, dynamic={dynamic}, {each[0]}x{each[1]}'
        yield Check(f'{name} outputs', errors.largest, max(FORWARD, 4 * own.largest))
        yield Check(f'{name} gradients', errors.gradients, max(GRADIENT, 4 * own.gradients))
    cells = {'backbone': subject.name, 'dynamic': dynamic, 'seconds': time.perf_counter() - begin}
    yield Row('Compiling a training step, and checking it', cells)


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

    def on_cpu(self) -> Compared:
        """The same, computed on the CPU."""
        other = copy.copy(self)
        other.device = ''  # nothing is moved
        return other

    def errors(self, form: Form, model: Any = None) -> Errors:
        """Compute a training step, of the network or of a copy of it that is on the device."""
        model, image, device = self._placed(form, model)
        scale = SCALE if form.dtype == 'fp16' else 1.0
        with form.active(device):
            levels, gradients = _step(model, image, scale)
            while not gradients.isfinite().all() and scale > 1:
                scale /= 4
                levels, gradients = _step(model, image, scale)
        deviation = (gradients - self.gradients).norm() / self.gradients.norm()
        return Errors(largest(levels, self.levels), rms(levels, self.levels), deviation.item())

    def deployed(self, form: Form) -> Levels:
        """The outputs for inference, folded where the network can be."""
        model, image, device = self._placed(form)
        model.eval()
        if isinstance(model, PyramidBackbone):
            model.switch_to_deploy()
        with torch.no_grad(), form.active(device):
            return [level.cpu() for level in model(image)]

    @torch.no_grad()
    def evaluated(self) -> Levels:
        """The outputs for inference in double precision, as the network is."""
        return copy.deepcopy(self.model).double().eval()(self.image.double())

    def _placed(self, form: Form, model: Any = None) -> tuple[Any, torch.Tensor, str]:
        if model is None:
            model = copy.deepcopy(self.model)
            model = model.to(self.device) if self.device else model
        device = next(model.parameters()).device
        return model, self.image.to(device, memory_format=form.layout), device.type


def _timm_model(name: str, size: Size, device: str) -> Compared | None:
    """timm's model of that name, if there is one."""
    try:
        models = timm_models(name, train=True)
    except UserError:  # no timm
        return None
    return Compared(models[''], torch.randn(2, 3, *size), device) if models else None


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
    gradients = [
        (torch.zeros_like(each) if each.grad is None else each.grad).cpu().double().flatten()
        for each in model.parameters()
    ]
    model.zero_grad(set_to_none=True)
    return [level.detach().cpu().double() for level in levels], torch.cat(gradients) / scale


def _deviation(reduce: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Levels, Levels], float]:
    def deviation(outputs: Levels, expected: Levels) -> float:
        pairs = zip(outputs, expected, strict=True)
        return max((reduce(a.double() - b) / b.std()).item() for a, b in pairs)

    return deviation


largest = _deviation(lambda difference: difference.abs().max())
rms = _deviation(lambda difference: difference.square().mean().sqrt())
