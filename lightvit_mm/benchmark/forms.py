"""The forms in which a backbone is run, as functions to be timed."""

from __future__ import annotations

import copy
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from lightvit_mm.errors import UserError
from lightvit_mm.export.onnx import export_module
from lightvit_mm.measure.limits import DTYPES
from lightvit_mm.runtimes.onnxruntime import INPUT, open_session
from lightvit_mm.runtimes.openvino import open_model

OURS, THEIRS = 'lightvit_mm', 'timm'


@dataclass(frozen=True)
class Form:
    """A way to run a network.

    Attributes:
        source: whose code, `OURS` or `THEIRS`.
        dtype: of the arithmetic, a key of `DTYPES`; below fp32 by autocast.
        how: what else tells it apart, such as ``compiled``.
        model: the module behind it.
        image: its input, on its device and in its memory layout.
        call: one step.
        first_call: seconds that preparing it and its first call took, where it is compiled.
    """

    source: str
    dtype: str
    how: str
    model: nn.Module
    image: torch.Tensor
    call: Callable[[], Any]
    first_call: float | None = None

    @property
    def name(self) -> str:
        """What tables call it."""
        return ' '.join(part for part in (self.source, self.dtype, self.how) if part)


def eager_form(
    source: str, model: nn.Module, image: torch.Tensor, dtype: str, train: bool, how: str = ''
) -> Form:
    """A form without further preparation.

    Args:
        source, dtype, how: see `Form`.
        model: images to a sequence of maps, already in the mode and form that is meant.
        image: (N, 3, H, W).
        train: a step is a forward and a backward pass from the sum of the means of the outputs;
            else a forward pass in inference mode.
    """
    amp: dict[str, Any] = {
        'device_type': image.device.type,
        'dtype': DTYPES[dtype],
        'enabled': dtype != 'fp32',
    }

    def infer() -> Any:
        with torch.inference_mode(), torch.autocast(**amp):
            return model(image)

    def step() -> None:
        with torch.autocast(**amp):
            loss = sum(level.float().mean() for level in model(image))
        loss.backward()
        model.zero_grad(set_to_none=True)

    return Form(source, dtype, how, model, image, step if train else infer)


def compiled_form(form: Form, train: bool) -> Form:
    """The same through ``torch.compile`` for this one input size.

    For inference, weights are made constants of the compiled code (inductor's ``freezing``).
    """
    begin = time.perf_counter()
    model = copy.deepcopy(form.model)
    model.compile(dynamic=False, options=None if train else {'freezing': True})
    how = f'{form.how} compiled'.strip()
    compiled = eager_form(form.source, model, form.image, form.dtype, train, how)
    compiled.call()
    return replace(compiled, first_call=time.perf_counter() - begin)


def exported_forms(form: Form, runtimes: Sequence[str]) -> list[Form]:
    """The same exported to ONNX and run by other runtimes, on as many threads as torch.

    Args:
        form: of inference, in fp32.
        runtimes: keys of `RUNTIMES`.
    """
    if not runtimes:
        return []
    begin = time.perf_counter()
    names = [f'level{i}' for i in range(len(form.call()))]
    image = form.image.contiguous().numpy()
    forms = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'model.onnx')
        height, width = form.image.shape[2:]
        export_module(form.model, file, names, (height, width))
        exporting = time.perf_counter() - begin
        for runtime in runtimes:
            begin = time.perf_counter()
            call = partial(RUNTIMES[runtime](file), image)
            call()
            taken = exporting + time.perf_counter() - begin
            forms.append(replace(form, how=runtime, call=call, first_call=taken))
    return forms


def _in_onnxruntime(file: Path) -> Callable[[np.ndarray], Any]:
    session = open_session(file)
    return lambda image: session.run(None, {INPUT: image})


def _in_openvino(file: Path) -> Callable[[np.ndarray], Any]:
    model = open_model(file)
    return lambda image: model([image])


RUNTIMES: dict[str, Callable[[Path], Callable[[np.ndarray], Any]]] = {
    'onnxruntime': _in_onnxruntime,
    'openvino': _in_openvino,
}


def timm_models(name: str, train: bool) -> dict[str, nn.Module]:
    """timm's pyramid of that name in both memory layouts, fused for inference where it can be.

    Args:
        name: as timm has it.
        train: leave it as it is trained.

    Returns:
        Layout to model; none if timm has no model of that name.

    Raises:
        UserError: timm cannot be imported.
    """
    timm = import_timm()
    if name not in timm.list_models():
        return {}
    # Levels of stride 4 and more, as ours; where timm begins at 16, all.
    strides = timm.create_model(name, features_only=True).feature_info.reduction()
    levels = [index for index, stride in enumerate(strides) if stride >= 4]
    model = timm.create_model(name, features_only=True, out_indices=levels).train(train)
    if not train:
        model = timm.utils.reparameterize_model(model)
    turned = copy.deepcopy(model).to(memory_format=torch.channels_last)
    return {'': model, 'channels_last': turned}


def import_timm() -> ModuleType:
    """timm, where it is installed or where tools/test.sh has put it.

    The latter is a folder beside the packages, because a torchvision that can't load its operators,
    as PyPI's beside a CPU torch, breaks mmdet. timm needs two of them to be named, not to work.

    Raises:
        UserError: it cannot be imported.
    """
    if importlib.util.find_spec('timm') is None:
        sys.path.append(str(Path(sys.prefix) / 'timm'))
    try:
        try:
            return importlib.import_module('timm')
        except RuntimeError:
            library = torch.library.Library('torchvision', 'FRAGMENT')
            for operator in ('nms', 'qnms'):
                library.define(f'{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor')
            return importlib.import_module('timm')
    except ImportError as error:
        raise UserError(f'timm cannot be imported ({error}): pip install timm') from error
