"""The benchmarks of tools/benchmark.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from lightvit_mm.backbones import PyramidBackbone
from lightvit_mm.benchmark.forms import (
    OURS,
    THEIRS,
    Form,
    compiled_form,
    eager_form,
    exported_forms,
    timm_models,
)
from lightvit_mm.benchmark.subjects import Subject
from lightvit_mm.errors import UserError
from lightvit_mm.export.formats import ONNX_PACKAGES
from lightvit_mm.measure.complexity import count_macs, count_parameters
from lightvit_mm.measure.limits import (
    TRAINING_PRODUCTS,
    Ceilings,
    Floors,
    count_moved,
    floors,
    measure_ceilings,
)
from lightvit_mm.measure.profiling import Operator, peak_memory, top_operators
from lightvit_mm.measure.timing import Timing, alternate, summarise
from lightvit_mm.runtimes.session import require_packages
from lightvit_mm.timm_import import import_timm

Size = tuple[int, int]

# Seconds. After a call, torch's threads keep their cores busy for some milliseconds, in which a
# runtime with its own threads took up to twice its time.
PAUSE = 0.01


@dataclass(frozen=True)
class Settings:
    """What to measure of every backbone at every size.

    Attributes:
        dtypes: keys of `DTYPES`; PyTorch's forms run in each of them.
        timm: also measure timm's model of the same name.
        compile: also measure the models through torch.compile.
        runtimes: keys of `RUNTIMES`; also export the models and run them there, in fp32, and in
            OpenVINO also in bf16 if that is one of ``dtypes``.
        files: exported files of the one whole model to measure too.
        train: measure a training step, forward and backward, instead of inference in deploy form.
        batch: number of images per step.
        device: ``cpu``, ``cuda`` or ``cuda:<number>``.
        rounds, min_seconds: see `alternate`.
        profile: also profile our first form.

    Raises:
        UserError: the settings exclude each other, or a package or the device is missing.
    """

    dtypes: tuple[str, ...] = ('fp32',)
    timm: bool = False
    compile: bool = False
    runtimes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    train: bool = False
    batch: int = 1
    device: str = 'cpu'
    rounds: int = 10
    min_seconds: float = 5.0
    profile: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r'cpu|cuda(:\d+)?', self.device):
            raise UserError(f'--device {self.device}: choose cpu, cuda, or cuda:1 and so on')
        if self.device != 'cpu' and not torch.cuda.is_available():
            raise UserError(f'--device {self.device}: torch finds no CUDA device; use --device cpu')
        if self.runtimes and (self.train or self.batch != 1 or self.device != 'cpu'):
            options = ' and '.join(f'--{name}' for name in self.runtimes)
            raise UserError(
                f'{options} measure inference of one image on the CPU: leave out --train, --batch '
                f'and --device, or leave out {options}'
            )
        for name in self.runtimes:
            require_packages((*ONNX_PACKAGES, name), 'openvino' if name == 'openvino' else 'onnx')
        if self.timm:
            import_timm()


@dataclass(frozen=True)
class Row:
    """The measurements of one form.

    Attributes:
        form: its name.
        source, dtype, how, first_call: see `Form`.
        timing: time of one step.
        peak_bytes: see `peak_memory`; None in other runtimes, whose memory torch does not see.
        parameters: number of parameters in this form.
        macs: multiply-accumulates of one step; a backward pass counts as two forward passes.
        floors: the least times in which this machine could compute the step.
    """

    form: str
    source: str
    dtype: str
    how: str
    first_call: float | None
    timing: Timing
    peak_bytes: int | None
    parameters: int
    macs: int
    floors: Floors

    @property
    def gflops(self) -> float:
        """Billions of multiplications and additions per second."""
        return 2e-9 * self.macs / self.timing.median

    @property
    def of_peak(self) -> float:
        """`gflops` as a share of the fastest matrix product's."""
        return self.floors.compute / self.timing.median

    @property
    def of_floor(self) -> float:
        """The larger floor as a share of the measured time."""
        return self.floors.larger / self.timing.median


@dataclass(frozen=True)
class Result:
    """One backbone at one size.

    Attributes:
        backbone: its name.
        shape: (N, 3, H, W) of the input.
        train: whether steps were training steps.
        baseline: name of the form that ratios refer to: the fastest eager form of another source
            in the first dtype, or our first form.
        ceilings: the machine's limits for each dtype, measured just before.
        rows: one per form.
        operators: the profile of our first form; empty unless requested.
        note: what was requested but could not be measured.
    """

    backbone: str
    shape: tuple[int, int, int, int]
    train: bool
    baseline: str
    ceilings: dict[str, Ceilings]
    rows: list[Row]
    operators: list[Operator]
    note: str


def benchmark(
    subject: Subject,
    size: Size,
    settings: Settings,
    rivals: Mapping[str, nn.Module] | None = None,
) -> Result:
    """Measure one backbone at one size.

    Args:
        subject: the backbone.
        size: height and width of the images.
        settings: which forms to measure, and for how long.
        rivals: other implementations by their names in tables, in the mode and memory layout in
            which they are to run. They run in the first data type only and are not compiled. The
            fastest is the baseline; the first is also exported.
    """
    torch.manual_seed(0)
    number = torch.device(settings.device).index
    if number is not None:
        # The clock synchronises with the current device only.
        torch.cuda.set_device(number)
    ceilings = {
        dtype: measure_ceilings(
            dtype, settings.device, min(settings.rounds, 5), min(settings.min_seconds, 1.0)
        )
        for dtype in dict.fromkeys((*settings.dtypes, *(['fp32'] if settings.runtimes else [])))
    }
    forms, note = _forms(subject, torch.randn(settings.batch, 3, *size), settings)
    forms += _rival_forms(rivals or {}, forms[0].image, settings)
    calls = {form.name: form.call for form in forms}
    seconds = alternate(calls, settings.rounds, settings.min_seconds, pause=PAUSE)
    baseline = _baseline(forms, seconds, settings.dtypes[0])
    timings = {timing.name: timing for timing in summarise(seconds, baseline)}
    return Result(
        subject.name,
        (settings.batch, 3, *size),
        settings.train,
        baseline,
        ceilings,
        [_row(form, timings[form.name], ceilings[form.dtype], settings) for form in forms],
        top_operators(forms[0].call, settings.device) if settings.profile else [],
        note,
    )


def _forms(subject: Subject, image: torch.Tensor, settings: Settings) -> tuple[list[Form], str]:
    image = image.to(settings.device)
    channels_last = image.to(memory_format=torch.channels_last)
    model, note = subject.build().train(settings.train), ''
    timm_name = f'{type(model).__name__.lower()}_{getattr(model, "arch_name", "")}'
    if not settings.train and isinstance(model, PyramidBackbone):
        model.switch_to_deploy()
    models: list[tuple[str, str, nn.Module, torch.Tensor]] = [(OURS, '', model, channels_last)]
    if settings.timm:
        others = timm_models(timm_name, settings.train)
        if not others:
            note = f'timm has no {timm_name}'
        for layout, other in others.items():
            models.append((THEIRS, layout, other, channels_last if layout else image))
    forms: list[Form] = []
    for source, how, module, x in models:
        module.to(settings.device)
        for dtype in settings.dtypes:
            forms.append(eager_form(source, module, x, dtype, settings.train, how))
            if settings.compile:
                forms.append(compiled_form(forms[-1], settings.train))
    ours = eager_form(OURS, model, channels_last, 'fp32', train=False)
    return forms + exported_forms(ours, settings.runtimes, None, settings.dtypes), note


def _rival_forms(
    rivals: Mapping[str, nn.Module], image: torch.Tensor, settings: Settings
) -> list[Form]:
    dtype = settings.dtypes[0]
    forms = [
        eager_form(
            name,
            module,
            image.contiguous(memory_format=_memory_format(module)),
            dtype,
            settings.train,
        )
        for name, module in rivals.items()
    ]
    if not forms:
        return []
    return forms + exported_forms(forms[0], settings.runtimes, None, settings.dtypes)


def _memory_format(module: nn.Module) -> torch.memory_format:
    """Memory layout of a module's convolution kernels."""
    kernels = [parameter for parameter in module.parameters() if parameter.dim() == 4]
    plain = all(kernel.is_contiguous() for kernel in kernels)
    return torch.contiguous_format if plain else torch.channels_last


def _baseline(forms: list[Form], seconds: dict[str, list[float]], dtype: str) -> str:
    medians = {timing.name: timing.median for timing in summarise(seconds, forms[0].name)}
    theirs = [
        form.name
        for form in forms
        if form.source != OURS and form.dtype == dtype and form.how in ('', 'channels_last')
    ]
    return min(theirs, key=medians.__getitem__) if theirs else forms[0].name


def _row(form: Form, timing: Timing, ceilings: Ceilings, settings: Settings) -> Row:
    macs = form.image.shape[0] * count_macs(form.model, *form.image.shape[2:])
    moved = count_moved(form.model, form.image.shape)
    return Row(
        form.name,
        form.source,
        form.dtype,
        form.how,
        form.first_call,
        timing,
        None if form.exported else peak_memory(form.call, settings.device),
        count_parameters(form.model),
        macs * (TRAINING_PRODUCTS if settings.train else 1),
        floors(macs, moved, form.dtype, ceilings, settings.train),
    )
