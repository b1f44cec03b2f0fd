"""Backbones alone, beside timm's and, in a checkout, beside the originals."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import lightvit_mm
from lightvit_mm.backbones import PyramidBackbone
from lightvit_mm.benchmark.forms import (
    OURS,
    THEIRS,
    Form,
    compiled_form,
    eager_form,
    timm_models,
)
from lightvit_mm.benchmark.subjects import variants
from lightvit_mm.errors import UserError
from lightvit_mm.gpu_check.context import Context
from lightvit_mm.gpu_check.record import Bar, Finding, Row
from lightvit_mm.gpu_check.steps import BACKBONES, Shape
from lightvit_mm.measure.profiling import peak_memory
from lightvit_mm.measure.timing import alternate, summarise

TRAINING: Shape = (16, 512, 512)
INFERENCE: tuple[Shape, ...] = ((16, 512, 512), (1, 512, 512))
# Ratios of the fastest other to ours.
TIME, TIME_COMPILED, MEMORY, MEMORY_COMPILED = 1.0, 1.2, 1.0, 1 / 0.7
ORIGINALS = Path(lightvit_mm.__file__).parents[1] / 'benchmarks'


def run(context: Context, job: str = '') -> None:
    """Measure, the most important first.

    Args:
        context: the surroundings.
        job: there is only one.
    """
    quick = context.settings.quick
    names = ('repvit_m0_9',) if quick else BACKBONES
    training, inference = TRAINING, INFERENCE
    if quick:
        training, inference = (2, 64, 64), ((1, 64, 64),)
    for name in names:
        measure = partial(compare, name, training, True, context)
        context.attempt(f'{name}, training step', measure, 6)
    for shape in inference:
        for name in names:
            measure = partial(compare, name, shape, False, context)
            context.attempt(f'{name}, inference of {shape[0]}', measure, 6)
    ratios: list[float] = []
    for name in names:
        measure = partial(compare, name, training, True, context, ratios)
        context.attempt(f'{name}, compiled training step', measure, 45)
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        name = f'training step, compiled, geometric mean of {len(ratios)} backbones'
        context.send(Bar(name, mean, TIME_COMPILED))


def compare(
    name: str,
    shape: Shape,
    train: bool,
    context: Context,
    compiled: list[float] | None = None,
) -> Iterator[Finding]:
    """Measure a backbone and its rivals in turn, in mixed precision.

    Args:
        name: name of the variant.
        shape: batch, height and width.
        train: a training step instead of inference in deploy form.
        context: the surroundings.
        compiled: compile ours too, and add the ratio of the fastest rival to it to this list.
    """
    device, quick = context.settings.device, context.settings.quick
    dtype = 'bf16' if device == 'cpu' else 'fp16'
    forms = _forms(name, shape, train, device, dtype)
    ours = forms[0].name
    if compiled is not None:
        # Generating code takes half a minute.
        forms.append(compiled_form(forms[0], train, 'eager' if quick else 'inductor'))
        ours = forms[-1].name
    seconds = alternate({form.name: form.call for form in forms}, rounds=2 if quick else 15)
    times = {timing.name: timing for timing in summarise(seconds, forms[0].name)}
    peaks = {form.name: peak_memory(form.call, device) / 1e6 for form in forms}
    for form in forms:
        yield Row(
            'Training step of a backbone' if train else 'Inference of a backbone',
            {
                'backbone': name,
                'input': 'x'.join(map(str, shape)),
                'form': form.name,
                'ms': 1e3 * times[form.name].median,
                'quartiles': ' '.join(f'{1e3 * t:.2f}' for t in times[form.name].quartiles),
                'peak MB': peaks[form.name],
                'compiling s': form.first_call,
            },
        )
    rivals = [form.name for form in forms if form.source != OURS]
    if not rivals:
        return
    fastest = min(rivals, key=lambda rival: times[rival].median)
    ratio = times[fastest].median / times[ours].median
    what = f'{name}, {shape[0]} images, {"training step" if train else "inference"}'
    if compiled is not None:
        compiled.append(ratio)
        what += ', compiled'
    else:
        yield Bar(f'{what}: time of {fastest} over ours', ratio, TIME)
    if train:
        least = min(peaks[rival] for rival in rivals)
        bar = MEMORY if compiled is None else MEMORY_COMPILED
        yield Bar(f'{what}: least peak of the others over ours', least / peaks[ours], bar)


def _forms(name: str, shape: Shape, train: bool, device: str, dtype: str) -> list[Form]:
    """Ours first; then timm's and the original in both memory layouts."""
    torch.manual_seed(0)
    image = torch.randn(shape[0], 3, *shape[1:]).to(device)
    turned = image.to(memory_format=torch.channels_last)
    ours: Any = variants()[name].build().train(train)
    if not train and isinstance(ours, PyramidBackbone):
        ours.switch_to_deploy()
    found: list[tuple[str, str, nn.Module, torch.Tensor]] = [(OURS, '', ours, turned)]
    try:
        for layout, model in timm_models(name, train).items():
            found.append((THEIRS, layout, model, turned if layout else image))
    except UserError:
        pass  # no timm: a comparison less
    for label, model in _originals(name, train).items():
        how = 'channels_last' if 'channels_last' in label else ''
        found.append(('original', how, model, turned if how else image))
    return [
        eager_form(source, model.to(device), x, dtype, train, how)
        for source, how, model, x in found
    ]


def _originals(name: str, train: bool) -> dict[str, nn.Module]:
    """The written-out originals of a checkout; none elsewhere, or for other variants."""
    if not (ORIGINALS / 'compare_speed.py').is_file():
        return {}
    if str(ORIGINALS) not in sys.path:
        sys.path.append(str(ORIGINALS))
    module: Any = importlib.import_module('compare_speed')
    rivals: Callable[[str, bool], dict[str, nn.Module]] = module.rivals
    return rivals(name, train) if name in module.VARIANTS else {}
