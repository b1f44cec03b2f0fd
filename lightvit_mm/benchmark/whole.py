"""The benchmark of whole detectors, segmentors and classifiers."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from lightvit_mm.benchmark.forms import Form, exported_forms, file_form
from lightvit_mm.benchmark.parts import BoxCount, Clocked, compile_parts, set_dtype
from lightvit_mm.benchmark.run import PAUSE, Settings
from lightvit_mm.benchmark.whole_models import (
    CANDIDATES,
    Size,
    WholeModel,
    normalised,
    read_image,
    set_candidates,
)
from lightvit_mm.data.config import is_classifier
from lightvit_mm.errors import UserError
from lightvit_mm.export.subject import whole_subject
from lightvit_mm.measure.complexity import count_macs, inference_form
from lightvit_mm.measure.profiling import Operator, top_operators
from lightvit_mm.measure.timing import Timing, alternate, summarise

RANDOM = (
    f'random weights: score thresholds are set so that about {CANDIDATES} boxes go into NMS; '
    '--checkpoint gives real ones'
)


@dataclass(frozen=True)
class WholeRow:
    """The measurements of one form of one model.

    Attributes:
        form: its name.
        model: name of the model.
        peer, trained, parameters: see `WholeModel`.
        dtype, how, first_call: see `Form`.
        timing: time of a call, from the normalised image (in other runtimes, from the image) to
            boxes or label map.
        parts: median seconds of each part, measured in calls of their own; empty in other runtimes,
            whose graph is one piece.
        boxes: boxes that go into the last NMS; None in other runtimes and without NMS.
        found: boxes that come out; None without boxes.
        macs: multiply-accumulates, see `inference_form`.
    """

    form: str
    model: str
    peer: bool
    trained: bool
    dtype: str
    how: str
    first_call: float | None
    timing: Timing
    parts: dict[str, float]
    boxes: int | None
    found: int | None
    parameters: int
    macs: int


@dataclass(frozen=True)
class WholeResult:
    """Models that took turns at one size.

    Attributes:
        shape: (1, 3, H, W) of the image.
        baseline: name of the form that ratios refer to: the first.
        rows: one per form.
        operators: the profile of the first form of each model; empty unless requested.
        notes: what was done to the models, and what could not be measured.
    """

    shape: tuple[int, int, int, int]
    baseline: str
    rows: list[WholeRow]
    operators: dict[str, list[Operator]]
    notes: list[str]


def benchmark_whole(
    models: Sequence[WholeModel], size: Size, settings: Settings, image: str | None = None
) -> WholeResult:
    """Measure models in turn at one size.

    Args:
        models: the models; thresholds of those with random weights are changed, see
            `set_candidates`.
        size: height and width of the image.
        settings: which forms to measure, and for how long.
        image: a photo, resized to that size; random without one.
    """
    picture = read_image(image, size).to(settings.device)
    notes: dict[str, None] = {}
    forms: list[tuple[WholeModel, Form]] = []
    for whole in models:
        if whole.is_detector and not whole.trained:
            set_candidates(whole, normalised(whole, picture))
            notes[RANDOM] = None
        forms += [(whole, form) for form in _torch_forms(whole, picture, settings)]
        try:
            forms += [(whole, form) for form in _exported(whole, picture, settings)]
        except UserError as error:
            notes[f'{whole.name}: {error}'] = None
        plain = Form(whole.name, 'fp32', '', whole.model, picture, lambda: None)
        files = [file_form(plain, file) for file in settings.files]
        forms += [(whole, _to_result(whole, form)) for form in files]
    calls = {form.name: form.call for _, form in forms}
    clocked = {form.name: Clocked(form.model, form.call) for _, form in forms if not form.exported}
    calls |= {f'{name}, by parts': call for name, call in clocked.items()}
    seconds = alternate(calls, settings.rounds, settings.min_seconds, pause=PAUSE)
    timings = {timing.name: timing for timing in summarise(seconds, forms[0][1].name)}
    macs = {whole.name: count_macs(inference_form(whole.model), *size) for whole in models}
    rows = []
    for whole, form in forms:
        measured = clocked[form.name].seconds if form.name in clocked else {}
        rounds = timings[form.name].rounds  # those before were to warm up
        parts = {part: float(np.median(values[-rounds:])) for part, values in measured.items()}
        rows.append(_row(whole, form, timings[form.name], parts, macs[whole.name]))
    operators = {}
    if settings.profile:
        for whole, form in forms:
            if not whole.peer and whole.name not in operators:
                operators[whole.name] = top_operators(form.call, settings.device)
    return WholeResult((1, 3, *size), forms[0][1].name, rows, operators, list(notes))


def _torch_forms(whole: WholeModel, picture: torch.Tensor, settings: Settings) -> list[Form]:
    image = normalised(whole, picture)
    base = _in_faster_layout(whole, image)
    forms = []
    for dtype, compiled in itertools.product(
        settings.dtypes, (False, True) if settings.compile else (False,)
    ):
        form, begin = base, time.perf_counter()
        if dtype != 'fp32' or compiled:
            how = f'{base.how} compiled'.strip() if compiled else base.how
            form = _changed(base, whole, dtype=dtype, how=how)
        if dtype != 'fp32':
            set_dtype(form.model, dtype, image.device.type)
        if compiled:
            compile_parts(form.model)
            form.call()
            form = replace(form, first_call=time.perf_counter() - begin)
        forms.append(form)
    return forms


def _in_faster_layout(whole: WholeModel, image: torch.Tensor) -> Form:
    """The model as it is or, if it is a faster peer that way, in channels_last."""
    plain = Form(whole.name, 'fp32', '', whole.model, image, partial(whole.predict, image))
    if not whole.peer:
        return plain
    layout = torch.channels_last
    turned = _changed(plain, whole, how='channels_last', image=image.to(memory_format=layout))
    turned.model.to(memory_format=layout)  # type: ignore[call-overload]
    seconds = alternate({'': plain.call, 'channels_last': turned.call}, rounds=5)
    return min(plain, turned, key=lambda form: min(seconds[form.how]))


def _changed(form: Form, whole: WholeModel, **changes: Any) -> Form:
    """A form with a model of its own."""
    image = changes.get('image', form.image)
    other = replace(whole, model=copy.deepcopy(form.model))
    return replace(form, model=other.model, call=partial(other.predict, image), **changes)


def _exported(whole: WholeModel, picture: torch.Tensor, settings: Settings) -> list[Form]:
    if not settings.runtimes:
        return []
    if is_classifier(whole.config):
        raise UserError('classifiers are not exported')
    height, width = picture.shape[2:]
    subject = whole_subject(whole.model, whole.preprocessing, (height, width), whole.is_detector)
    module = subject.whole
    form = Form(whole.name, 'fp32', '', module, picture, partial(module, picture))
    forms = exported_forms(form, settings.runtimes, subject, settings.dtypes)
    return [_to_result(whole, form) for form in forms]


def _to_result(whole: WholeModel, form: Form) -> Form:
    """An exported form that ends where PyTorch's does."""
    return form if whole.is_detector else replace(form, call=partial(_label_map, form.call))


def _label_map(call: Callable[[], Any]) -> torch.Tensor:
    return torch.from_numpy(call()['logits']).argmax(1)


def _row(
    whole: WholeModel, form: Form, timing: Timing, parts: dict[str, float], macs: int
) -> WholeRow:
    count, found = BoxCount(), None
    with count.watching(form.model):
        result = form.call()
    if whole.is_detector:
        found = len(result['boxes'] if form.exported else result.pred_instances)
    return WholeRow(
        form.name,
        whole.name,
        whole.peer,
        whole.trained,
        form.dtype,
        form.how,
        form.first_call,
        timing,
        parts,
        count.boxes,
        found,
        whole.parameters,
        macs,
    )
