"""Inference of whole detectors, and of the backbone that launches the most for its size."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from gpu.context import Context
from gpu.device import graphed, kernels
from gpu.record import Bar, Finding, Row
from gpu.steps import BACKBONES, Shape
from lightvit_mm.benchmark.parts import set_dtype
from lightvit_mm.benchmark.subjects import variants
from lightvit_mm.benchmark.whole_models import load_whole, normalised, read_image, set_candidates
from lightvit_mm.measure.limits import DTYPES
from lightvit_mm.measure.profiling import peak_memory
from lightvit_mm.measure.timing import alternate, summarise

SMALL = 'efficientvit_m4'
SPEED_UP = 2.0  # of a graph or of compiled code over eager, for one image
ONE, MANY = (1, 800, 1344), (16, 800, 1344)
NO_GRAPH = 'eager, as a CPU has no graphs'


def run(context: Context, job: str = '') -> None:
    """Measure, the most important first."""
    quick = context.settings.quick
    small = 'efficientvit_m0' if quick else SMALL
    context.attempt(f'{small}, one image', partial(measure_launches, small, context), 25)
    plan = ((ONE, False, 6), (MANY, False, 6), (ONE, True, 25))
    backbones = ('edgevit_xxs',) if quick else BACKBONES
    for (shape, compiled, seconds), backbone in itertools.product(plan, backbones):
        config, taken = f'retinanet_{backbone}_coco', (min(shape[0], 2), 64, 64) if quick else shape
        what = f'{config}, {taken[0]} images' + ', compiled backbone' * compiled
        measure = partial(measure_detector, config, taken, context, compiled)
        context.attempt(what, measure, seconds)


def measure_launches(name: str, context: Context) -> Iterator[Finding]:
    """One image through a backbone: eager, as a CUDA graph, and compiled."""
    settings = context.settings
    device, side = settings.device, 64 if settings.quick else 512
    model: Any = variants()[name].build().eval()
    model.switch_to_deploy().to(device)
    image = torch.randn(1, 3, side, side).to(device, memory_format=torch.channels_last)

    def call(x: torch.Tensor) -> Any:
        with torch.autocast(device, DTYPES[settings.half]):
            return model(x)

    with torch.inference_mode():
        graph = 'graph' if settings.on_gpu else NO_GRAPH
        forms = {'eager': partial(call, image), graph: partial(graphed(call, image), image)}
        begin = time.perf_counter()
        compiled = torch.compile(call, dynamic=False, backend=settings.compiler)
        compiled(image)
        compiling = time.perf_counter() - begin
        forms['compiled'] = partial(compiled, image)
        seconds = alternate(forms, rounds=2 if settings.quick else 50, warmup=3)
        for timing in summarise(seconds, 'eager'):
            cells: dict[str, Any] = {'backbone': name, 'form': f'{settings.half} {timing.name}'}
            cells |= {'ms': 1e3 * timing.median, 'times eager': timing.ratio}
            cells['launches'] = kernels(forms[timing.name], device)['launches']
            cells['compiling s'] = compiling if timing.name == 'compiled' else None
            yield Row(f'One image of {side}x{side} through a backbone', cells)
            if timing.name not in ('eager', NO_GRAPH):
                yield Bar(f'{name}, one image, {timing.name} over eager', timing.ratio, SPEED_UP)


def measure_detector(
    config: str, shape: Shape, context: Context, compiled: bool
) -> Iterator[Finding]:
    """Time a detector from the normalised images to its boxes.

    Args:
        config: name of the config.
        shape: batch, height and width.
        context: the surroundings.
        compiled: compile the backbone, instead of capturing it as a CUDA graph.
    """
    settings, compiling = context.settings, None
    device, dtype = settings.device, settings.half
    whole = load_whole(config, device=device)
    image = normalised(whole, read_image(None, shape[1:]).to(device))
    set_candidates(whole, image)
    images = image.repeat(shape[0], 1, 1, 1)
    low = copy.deepcopy(whole.model)
    set_dtype(low, dtype, device)
    fast = copy.deepcopy(whole.model)
    set_dtype(fast, dtype, device)
    how = 'compiled backbone' if compiled else 'graph of the backbone'
    if not compiled and not settings.on_gpu:
        how = NO_GRAPH
    models = {'fp32': whole.model, dtype: low, f'{dtype}, {how}': fast}
    calls = {name: partial(predict, each, images) for name, each in models.items()}
    with torch.inference_mode():
        begin, forward = time.perf_counter(), fast.backbone.forward
        if compiled:
            forward = torch.compile(forward, dynamic=False, backend=settings.compiler)
            forward(images)
            compiling = time.perf_counter() - begin
        else:
            forward = graphed(forward, images)
        fast.backbone.forward = forward
    rounds, warmup = (1, 1) if settings.quick else (10, 3)
    for timing in summarise(alternate(calls, rounds, warmup=warmup), 'fp32'):
        call = calls[timing.name]
        cells: dict[str, Any] = {'config': config, 'input': 'x'.join(map(str, shape))}
        cells |= {'form': timing.name, 'ms': 1e3 * timing.median}
        cells |= {'images a second': shape[0] / timing.median, 'times fp32': timing.ratio}
        cells['launches'] = kernels(call, device)['launches']
        cells['peak MB'] = peak_memory(call, device) / 1e6 if settings.on_gpu else None
        cells['compiling s'] = compiling if how in timing.name else None
        yield Row('Inference of a detector', cells)


def predict(model: Any, images: torch.Tensor) -> Any:
    """The boxes of normalised images."""
    from mmdet.structures import DetDataSample

    size = tuple(images.shape[2:])
    shapes = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    meta = {**dict.fromkeys(shapes, size), 'scale_factor': (1.0, 1.0)}
    samples = [DetDataSample(metainfo=meta) for _ in images]
    with torch.inference_mode():
        return model.predict(images, samples)
