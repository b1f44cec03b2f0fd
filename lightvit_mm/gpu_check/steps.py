"""Time and memory of the training steps of whole detectors, and where the time goes."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch.utils._pytree import tree_leaves

from lightvit_mm.engine.amp import use_amp
from lightvit_mm.engine.configs import load_config
from lightvit_mm.errors import UserError
from lightvit_mm.gpu_check.context import Context
from lightvit_mm.gpu_check.device import kernels, peak_megabytes
from lightvit_mm.gpu_check.record import Finding, Row
from lightvit_mm.measure.timing import alternate, summarise

BACKBONES = (
    'edgevit_s',
    'repvit_m1_1',
    'efficientvit_m4',
    'mobilevit_s',
    'shuffle_swin_extra_tiny',
)
# Batch, height and width.
SHAPES = ((2, 800, 1344), (8, 800, 1344), (16, 512, 512))
OBJECTS = 10  # in each image

Shape = tuple[int, int, int]


def run(context: Context, job: str = '') -> None:
    """Measure, the most important first; what does not fit into the time is left out.

    Args:
        context: the surroundings.
        job: there is only one.
    """
    quick = context.settings.quick
    backbones = ('edgevit_xxs',) if quick else BACKBONES
    shapes = ((2, 64, 64),) if quick else SHAPES

    def measure(head: str, shape: Shape, how: str = '', seconds: float = 4.0) -> None:
        for backbone in backbones:
            name = f'{head}_{backbone}_coco'
            what = ' '.join(filter(None, (name, 'x'.join(map(str, shape)), how)))
            context.attempt(what, partial(measure_step, name, shape, context, how), seconds)

    small, *others = shapes
    measure('retinanet', small)
    for backbone in backbones:
        name = f'retinanet_{backbone}_coco'
        context.attempt(f'profile of {name}', partial(profile_step, name, small, context), 5)
    for shape in others:
        measure('retinanet', shape)
    large = (others or shapes)[0]
    measure('retinanet', large, 'with_cp')
    for head in ('mask_rcnn', 'rtmdet'):
        for shape in shapes:
            measure(head, shape)
    measure('retinanet', large, 'compiled', 45)


def measure_step(name: str, shape: Shape, context: Context, how: str) -> Iterator[Finding]:
    """Time a training step with AMP and without, in turn, on the same model.

    A step is all that mmengine does with a batch: normalising, both passes and the optimizer.

    Args:
        name: name of a config.
        shape: batch, height and width.
        context: the surroundings.
        how: ``with_cp``, ``compiled`` (the backbone, AMP only) or nothing.
    """
    device, quick = context.settings.device, context.settings.quick
    model = build(name, device, with_cp=how == 'with_cp')
    data = batch(shape, masks=name.startswith('mask_rcnn'))
    forms = ['AMP'] if how == 'compiled' else ['AMP', 'fp32']
    if device == 'cpu' and name.startswith('mask_rcnn'):
        forms = ['fp32']  # its RoIAlign has no bfloat16
    steps = {form: Step(model, name, data, amp=form == 'AMP') for form in forms}
    compiling = None
    if how == 'compiled':
        begin = time.perf_counter()
        model.backbone.compile(dynamic=False, backend='eager' if quick else 'inductor')
        steps['AMP']()
        compiling = time.perf_counter() - begin
    seconds = alternate(steps, rounds=1 if quick else 6, warmup=0 if quick else 3)
    for timing in summarise(seconds, forms[0]):
        peak = peak_megabytes(steps[timing.name], device)
        if peak is not None:  # less what the other form's optimizer remembers
            others = [other for form, other in steps.items() if form != timing.name]
            peak -= sum(other.megabytes_of_state() for other in others)
        yield Row(
            'Training step',
            {
                'config': name,
                'input': 'x'.join(map(str, shape)),
                'how': f'{timing.name} {how}'.strip(),
                'ms': 1e3 * timing.median,
                'quartiles': ' '.join(f'{1e3 * each:.1f}' for each in timing.quartiles),
                'images a second': shape[0] / timing.median,
                'peak MB': peak,
                'compiling s': compiling,
            },
        )


def profile_step(name: str, shape: Shape, context: Context) -> Iterator[Finding]:
    """Where the time of a step with AMP goes: kernels, or waiting for their launches."""
    device = context.settings.device
    model = build(name, device)
    call = Step(model, name, batch(shape, masks=False), amp=True)
    found = kernels(call, device)
    wall = min(alternate({'': call}, rounds=1 if context.settings.quick else 8)[''])
    yield Row(
        'Where the time of a training step goes, AMP',
        {
            'config': name,
            'input': 'x'.join(map(str, shape)),
            'ms': 1e3 * wall,
            'kernels ms': found.milliseconds,
            'launches': found.launches,
            'longest': found.longest,
        },
    )


def build(name: str, device: str, with_cp: bool = False) -> Any:
    """A detector with random weights, in training mode.

    Raises:
        UserError: mmdet or mmcv's operators are missing.
    """
    config = _config(name)
    config.model.backbone.update(init_cfg=None, with_cp=with_cp)
    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    return model.to(device).train()


def batch(shape: Shape, masks: bool) -> dict[str, Any]:
    """Random images and objects as a data loader gives them, with masks or without."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    number, height, width = shape
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(number):
        corner = rng.uniform((0, 0), (width * 0.7, height * 0.7), (OBJECTS, 2))
        sides = rng.uniform((8, 8), (width * 0.3, height * 0.3), (OBJECTS, 2))
        boxes = np.concatenate([corner, corner + sides], axis=1).astype('float32')
        sample = DetDataSample(
            metainfo={
                'img_shape': (height, width),
                'ori_shape': (height, width),
                'pad_shape': (height, width),
                'scale_factor': (1.0, 1.0),
            }
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(rng.integers(0, 80, OBJECTS)),
        )
        if masks:
            shapes = np.zeros((OBJECTS, height, width), np.uint8)
            for mask, (left, top, right, bottom) in zip(shapes, boxes.astype(int), strict=True):
                mask[top:bottom, left:right] = 1
            sample.gt_instances.masks = BitmapMasks(shapes, height, width)
        samples.append(sample)
    images = list(torch.randint(0, 256, (number, 3, height, width), dtype=torch.uint8))
    return {'inputs': images, 'data_samples': samples}


class Step:
    """A training step of a model, with the optimizer of its config.

    Args:
        model: the detector.
        name: name of its config.
        data: from `batch`.
        amp: use mixed precision.
    """

    def __init__(self, model: Any, name: str, data: dict[str, Any], amp: bool) -> None:
        config = _config(name)
        if amp:
            use_amp(config)
        self.model, self.data = model, data
        self.wrapper: Any = build_optim_wrapper(model, config.optim_wrapper)

    def __call__(self) -> Any:
        """Train on the batch, and return its losses."""
        return self.model.train_step(self.data, self.wrapper)

    def megabytes_of_state(self) -> float:
        """What the optimizer remembers."""
        states = tree_leaves([*self.wrapper.optimizer.state.values()])
        return sum(each.nbytes for each in states if isinstance(each, torch.Tensor)) / 1e6


def _config(name: str) -> Config:
    try:
        for module in ('mmcv.ops', 'mmdet'):
            importlib.import_module(module)
    except ImportError as error:
        raise UserError(f'no detector can be built ({error}): bash tools/setup.sh') from error
    return load_config(name)
