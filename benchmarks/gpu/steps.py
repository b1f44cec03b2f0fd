"""Time and memory of the training steps of whole detectors, and where the time goes."""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from gpu.context import Context
from gpu.device import kernels
from gpu.record import Finding, Row
from lightvit_mm.engine.amp import use_amp
from lightvit_mm.engine.configs import load_config
from lightvit_mm.errors import UserError
from lightvit_mm.measure.profiling import peak_memory
from lightvit_mm.measure.timing import alternate, summarise

BACKBONES = (
    'edgevit_s',
    'repvit_m1_1',
    'efficientvit_m4',
    'mobilevit_s',
    'shuffle_swin_extra_tiny',
)
Shape = tuple[int, int, int]  # batch, height and width
SMALL, LARGE, SQUARE = (2, 800, 1344), (8, 800, 1344), (16, 512, 512)
# Head, shape, what else, and the seconds that one backbone needs at most; the most important first.
PLAN: tuple[tuple[str, Shape, str, float], ...] = (
    ('retinanet', SMALL, '', 4),
    ('retinanet', SMALL, 'profile', 5),
    ('retinanet', LARGE, '', 4),
    ('retinanet', SQUARE, '', 4),
    ('retinanet', LARGE, 'with_cp', 4),
    *((head, shape, '', 4) for head in ('mask_rcnn', 'rtmdet') for shape in (SMALL, LARGE, SQUARE)),
    ('retinanet', LARGE, 'compiled', 45),
)
OBJECTS = 10  # in each image


def run(context: Context, job: str = '') -> None:
    """Measure by `PLAN`; what does not fit into the time is left out."""
    quick = context.settings.quick
    plan = [each for each in PLAN if not quick or each[1] == SMALL or each[2]]
    backbones = ('edgevit_xxs',) if quick else BACKBONES
    for (head, shape, how, seconds), backbone in itertools.product(plan, backbones):
        name = f'{head}_{backbone}_coco'
        taken = (2, 64, 64) if quick else shape
        what = f'{name} {"x".join(map(str, taken))} {how}'.strip()
        measure = profile_step if how == 'profile' else partial(measure_step, how=how)
        context.attempt(what, partial(measure, name, taken, context), seconds)


def measure_step(name: str, shape: Shape, context: Context, how: str) -> Iterator[Finding]:
    """Time a training step with AMP and without, in turn, on the same model.

    A step is all that mmengine does with a batch: normalising, both passes and the optimizer.

    Args:
        name: name of a config.
        shape: batch, height and width.
        context: the surroundings.
        how: ``with_cp``, ``compiled`` (the backbone, AMP only) or nothing.
    """
    settings, compiling = context.settings, None
    model = build(name, settings.device, with_cp=how == 'with_cp')
    forms = ['AMP'] if how == 'compiled' else ['AMP', 'fp32']
    if not settings.on_gpu and name.startswith('mask_rcnn'):
        forms = ['fp32']  # its RoIAlign has no bfloat16
    steps = {form: step_of(model, name, shape, amp=form == 'AMP') for form in forms}
    if how == 'compiled':
        begin = time.perf_counter()
        model.backbone.compile(dynamic=False, backend=settings.compiler)
        steps['AMP']()
        compiling = time.perf_counter() - begin
    rounds, warmup = (1, 0) if settings.quick else (6, 3)
    for timing in summarise(alternate(steps, rounds, warmup=warmup), forms[0]):
        cells: dict[str, Any] = {'config': name, 'input': 'x'.join(map(str, shape))}
        cells |= {'how': f'{timing.name} {how}'.strip(), 'ms': 1e3 * timing.median}
        cells['quartiles'] = ' '.join(f'{1e3 * each:.1f}' for each in timing.quartiles)
        cells['images a second'] = shape[0] / timing.median
        # Without weights and the optimizer's state, which both forms have.
        peak = peak_memory(steps[timing.name], 'cuda') if settings.on_gpu else None
        cells |= {'peak MB of a step': peak and peak / 1e6, 'compiling s': compiling}
        yield Row('Training step', cells)


def profile_step(name: str, shape: Shape, context: Context) -> Iterator[Finding]:
    """Where the time of a step with AMP goes: kernels, or waiting for their launches."""
    device, quick = context.settings.device, context.settings.quick
    call = step_of(build(name, device), name, shape, amp=True)
    found = kernels(call, device)
    wall = min(alternate({'': call}, rounds=1 if quick else 8)[''])
    cells = {'config': name, 'input': 'x'.join(map(str, shape)), 'ms': 1e3 * wall}
    yield Row('Where the time of a training step goes, AMP', cells | found)


def build(name: str, device: str, with_cp: bool = False) -> Any:
    """A detector with random weights, in training mode."""
    config = _config(name)
    config.model.backbone.update(init_cfg=None, with_cp=with_cp)
    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    return model.to(device).train()


def step_of(model: Any, name: str, shape: Shape, amp: bool) -> partial:
    """A training step on random images and objects, with the optimizer of the config."""
    from mmdet.testing import demo_mm_inputs

    number, *size = shape
    # RTMDet's assigner does not take masks.
    masks = name.startswith('mask_rcnn')
    objects = {'num_items': [OBJECTS] * number, 'num_classes': 80, 'with_mask': masks}
    data = demo_mm_inputs(number, (3, *size), **objects)
    config = _config(name)
    if amp:
        use_amp(config)
    return partial(model.train_step, data, build_optim_wrapper(model, config.optim_wrapper))


def _config(name: str) -> Config:
    try:
        for module in ('mmcv.ops', 'mmdet'):
            importlib.import_module(module)
    except ImportError as error:
        raise UserError(f'no detector can be built ({error}): bash tools/setup.sh') from error
    return load_config(name)
