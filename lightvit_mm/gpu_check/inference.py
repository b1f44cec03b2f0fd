"""Inference of whole detectors, and of the backbone that launches the most for its size."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from lightvit_mm.benchmark.parts import set_dtype
from lightvit_mm.benchmark.subjects import variants
from lightvit_mm.benchmark.whole_models import (
    load_whole,
    normalised,
    read_image,
    set_candidates,
)
from lightvit_mm.gpu_check.context import Context
from lightvit_mm.gpu_check.device import graphed, kernels, peak_megabytes
from lightvit_mm.gpu_check.record import Bar, Finding, Row
from lightvit_mm.gpu_check.steps import BACKBONES, Shape
from lightvit_mm.measure.limits import DTYPES
from lightvit_mm.measure.timing import alternate, summarise

SMALL = 'efficientvit_m4'
SPEED_UP = 2.0  # of a graph or of compiled code over eager, for one image
SHAPES: tuple[Shape, ...] = ((1, 800, 1344), (16, 800, 1344))

NO_GRAPH = 'eager, as a CPU has no graphs'

Call = Callable[[], Any]


def run(context: Context, job: str = '') -> None:
    """Measure, the most important first.

    Args:
        context: the surroundings.
        job: there is only one.
    """
    quick = context.settings.quick
    small = 'efficientvit_m0' if quick else SMALL
    name = f'{small}, one image'
    context.attempt(name, partial(measure_launches, small, context), 25)
    backbones: tuple[str, ...] = BACKBONES
    shapes = SHAPES
    if quick:
        backbones, shapes = ('edgevit_xxs',), ((2, 64, 64),)
    for shape in shapes:
        for backbone in backbones:
            config = f'retinanet_{backbone}_coco'
            measure = partial(measure_detector, config, shape, context)
            context.attempt(f'{config}, {shape[0]} images', measure, 6)
    for backbone in backbones:
        config = f'retinanet_{backbone}_coco'
        measure = partial(measure_detector, config, shapes[0], context, compiled=True)
        context.attempt(f'{config}, compiled backbone', measure, 25)


def measure_launches(name: str, context: Context) -> Iterator[Finding]:
    """One image through a backbone: eager, as a CUDA graph, and compiled.

    Args:
        name: name of the variant.
        context: the surroundings.
    """
    device, quick = context.settings.device, context.settings.quick
    dtype = _low(device)
    side = 64 if quick else 512
    model: Any = variants()[name].build().eval()
    model.switch_to_deploy().to(device)
    image = torch.randn(1, 3, side, side).to(device, memory_format=torch.channels_last)

    def call(x: torch.Tensor) -> Any:
        with torch.autocast(device, DTYPES[dtype]):
            return model(x)

    with torch.inference_mode():
        graph = 'graph' if context.settings.on_gpu else NO_GRAPH
        forms = {'eager': partial(call, image), graph: partial(graphed(call, image), image)}
        begin = time.perf_counter()
        compiled = torch.compile(call, dynamic=False, backend='eager' if quick else 'inductor')
        compiled(image)
        compiling = time.perf_counter() - begin
        forms['compiled'] = partial(compiled, image)
        seconds = alternate(forms, rounds=2 if quick else 50, warmup=3)
        for timing in summarise(seconds, 'eager'):
            cells: dict[str, Any] = {'backbone': name, 'form': f'{dtype} {timing.name}'}
            cells |= {'ms': 1e3 * timing.median, 'times eager': timing.ratio}
            cells['launches'] = kernels(forms[timing.name], device).launches
            cells['compiling s'] = compiling if timing.name == 'compiled' else None
            yield Row(f'One image of {side}x{side} through a backbone', cells)
            if timing.name not in ('eager', NO_GRAPH):
                yield Bar(f'{name}, one image, {timing.name} over eager', timing.ratio, SPEED_UP)


def measure_detector(
    config: str, shape: Shape, context: Context, compiled: bool = False
) -> Iterator[Finding]:
    """Time a detector from the normalised images to its boxes.

    Args:
        config: name of the config.
        shape: batch, height and width.
        context: the surroundings.
        compiled: compile the backbone, instead of capturing it as a CUDA graph.
    """
    device, quick = context.settings.device, context.settings.quick
    number, *size = shape
    whole = load_whole(config, device=device)
    image = normalised(whole, read_image(None, (size[0], size[1])).to(device))
    set_candidates(whole, image)
    images = image.repeat(number, 1, 1, 1)
    dtype, compiling = _low(device), None
    low = copy.deepcopy(whole.model)
    set_dtype(low, dtype, device)
    third = copy.deepcopy(whole.model)
    set_dtype(third, dtype, device)
    how = 'compiled backbone' if compiled else 'graph of the backbone'
    if not compiled and not context.settings.on_gpu:
        how = NO_GRAPH
    models = {'fp32': whole.model, dtype: low, f'{dtype}, {how}': third}
    calls: dict[str, Call] = {name: partial(predict, each, images) for name, each in models.items()}
    with torch.inference_mode():
        begin, forward = time.perf_counter(), third.backbone.forward
        if compiled:
            backend = 'eager' if quick else 'inductor'
            third.backbone.forward = torch.compile(forward, dynamic=False, backend=backend)
            third.backbone(images)
            compiling = time.perf_counter() - begin
        else:
            third.backbone.forward = graphed(forward, images)
    seconds = alternate(calls, rounds=1 if quick else 10, warmup=1 if quick else 3)
    for timing in summarise(seconds, 'fp32'):
        yield Row(
            'Inference of a detector',
            {
                'config': config,
                'input': 'x'.join(map(str, shape)),
                'form': timing.name,
                'ms': 1e3 * timing.median,
                'images a second': number / timing.median,
                'times fp32': timing.ratio,
                'launches': kernels(calls[timing.name], device).launches,
                'peak MB': peak_megabytes(calls[timing.name], device),
                'compiling s': compiling if how in timing.name else None,
            },
        )


def predict(model: Any, images: torch.Tensor) -> Any:
    """The boxes of normalised images."""
    from mmdet.structures import DetDataSample

    size = tuple(images.shape[2:])
    shapes = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    meta = {**dict.fromkeys(shapes, size), 'scale_factor': (1.0, 1.0)}
    samples = [DetDataSample(metainfo=meta) for _ in images]
    with torch.inference_mode():
        return model.predict(images, samples)


def _low(device: str) -> str:
    return 'bf16' if device == 'cpu' else 'fp16'
