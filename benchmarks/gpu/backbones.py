"""Backbones alone, beside timm's and the originals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import compare_speed
import torch
from torch import nn

from gpu.context import Context
from gpu.record import Bar, Finding, Row
from gpu.steps import BACKBONES, SQUARE, Shape
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
from lightvit_mm.measure.profiling import peak_memory
from lightvit_mm.measure.timing import alternate, summarise

# Ratios of the fastest other to ours.
TIME, TIME_COMPILED, MEMORY, MEMORY_COMPILED = 1.0, 1.2, 1.0, 1 / 0.7
# What, the images, and the seconds that one backbone needs; the most important first.
PLAN: tuple[tuple[str, Shape, float], ...] = (
    ('training step', SQUARE, 6),
    ('inference', SQUARE, 6),
    ('inference', (1, 512, 512), 6),
    ('compiled training step', SQUARE, 45),
)


def run(context: Context, job: str = '') -> None:
    """Measure by `PLAN`; what does not fit into the time is left out."""
    quick = context.settings.quick
    backbones = ('repvit_m0_9',) if quick else BACKBONES
    ratios: list[float] = []
    for (what, shape, seconds), name in itertools.product(PLAN, backbones):
        taken = (min(shape[0], 2), 64, 64) if quick else shape
        measure = partial(compare, name, what, taken, context, ratios)
        context.attempt(f'{name}, {what}, {taken[0]} images', measure, seconds)
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        name = f'compiled training step, geometric mean of {len(ratios)} backbones'
        context.send(Bar(name, mean, TIME_COMPILED))


def compare(
    name: str, what: str, shape: Shape, context: Context, ratios: list[float]
) -> Iterator[Finding]:
    """Measure a backbone and its rivals in turn, in mixed precision.

    Args:
        name: name of the variant.
        what: of `PLAN`.
        shape: batch, height and width.
        context: the surroundings.
        ratios: the ratio of the fastest rival to the compiled backbone is added here.
    """
    settings, train, compiled = context.settings, what != 'inference', what.startswith('compiled')
    forms = _forms(name, shape, train, context)
    ours = forms[0].name
    if compiled:
        forms.append(compiled_form(forms[0], train, settings.compiler))
        ours = forms[-1].name
    calls = {form.name: form.call for form in forms}
    seconds = alternate(calls, rounds=2 if settings.quick else 15)
    times = {timing.name: timing for timing in summarise(seconds, forms[0].name)}
    peaks = {form.name: peak_memory(form.call, settings.device) / 1e6 for form in forms}
    for form in forms:
        timing = times[form.name]
        cells: dict[str, Any] = {'backbone': name, 'input': 'x'.join(map(str, shape))}
        cells |= {'form': form.name, 'ms': 1e3 * timing.median}
        cells['quartiles'] = ' '.join(f'{1e3 * each:.2f}' for each in timing.quartiles)
        cells |= {'peak MB': peaks[form.name], 'compiling s': form.first_call}
        yield Row(f'{what.capitalize()} of a backbone', cells)
    rivals = [form.name for form in forms if form.source != OURS]
    if not rivals:
        return
    fastest = min(rivals, key=lambda rival: times[rival].median)
    ratio = times[fastest].median / times[ours].median
    if compiled:
        ratios.append(ratio)
    else:
        title = f'{name}, {what}, {shape[0]} images: time of {fastest} over ours'
        yield Bar(title, ratio, TIME)
    if train:
        least = min(peaks[rival] for rival in rivals) / peaks[ours]
        title = f'{name}, {what}: least peak of the others over ours'
        yield Bar(title, least, MEMORY_COMPILED if compiled else MEMORY)


def _forms(name: str, shape: Shape, train: bool, context: Context) -> list[Form]:
    """Ours first; then timm's and the original in both memory layouts."""
    device, dtype = context.settings.device, context.settings.half
    torch.manual_seed(0)
    image = torch.randn(shape[0], 3, *shape[1:]).to(device)
    ours: Any = variants()[name].build().train(train)
    if not train and isinstance(ours, PyramidBackbone):
        ours.switch_to_deploy()
    found: list[tuple[str, str, nn.Module]] = [(OURS, 'channels_last', ours)]
    with suppress(UserError):  # no timm: a comparison less
        found += [(THEIRS, how, model) for how, model in timm_models(name, train).items()]
    if name in compare_speed.VARIANTS:
        for label, model in compare_speed.rivals(name, train).items():
            found.append(('original', label.partition(', ')[2], model))
    turned = image.to(memory_format=torch.channels_last)
    return [
        eager_form(source, model.to(device), turned if how else image, dtype, train, how)
        for source, how, model in found
    ]
