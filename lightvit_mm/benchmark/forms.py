"""The forms in which a network can be run, as functions to be timed."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightvit_mm.errors import UserError
from lightvit_mm.export.exporting import export_subject
from lightvit_mm.export.subject import Subject
from lightvit_mm.measure.limits import DTYPES
from lightvit_mm.runtimes.onnxruntime import OnnxSession
from lightvit_mm.runtimes.openvino import OpenvinoSession
from lightvit_mm.runtimes.session import Session, open_file, suffix_of
from lightvit_mm.timm_import import import_timm

OURS, THEIRS = 'lightvit_mm', 'timm'


@dataclass(frozen=True)
class Form:
    """A way to run a network.

    Attributes:
        source: whose implementation it is: `OURS`, `THEIRS` or the name of a rival.
        dtype: data type of the arithmetic, a key of `DTYPES`; below fp32 by autocast.
        how: anything else that distinguishes it, e.g. ``compiled``, a key of `RUNTIMES`, or the
            name of an exported file.
        model: the PyTorch module.
        image: its input, on its device and in its memory layout.
        call: runs one step.
        first_call: seconds for preparation and first call, if it is compiled or exported.
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
        """Name in tables."""
        return ' '.join(part for part in (self.source, self.dtype, self.how) if part)

    @property
    def exported(self) -> bool:
        """Whether it runs in another runtime."""
        return self.how in RUNTIMES or suffix_of(self.how) is not None


def eager_form(
    source: str, model: nn.Module, image: torch.Tensor, dtype: str, train: bool, how: str = ''
) -> Form:
    """A form that runs the module as it is.

    Args:
        source, dtype, how: see `Form`.
        model: takes images and returns a sequence of maps; already in train or eval mode.
        image: (N, 3, H, W).
        train: a step is a forward and a backward pass, with the sum of the outputs' means as loss;
            otherwise a forward pass in inference mode.
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


def compiled_form(form: Form, train: bool, backend: str = 'inductor') -> Form:
    """The same module through ``torch.compile``, for this one input size.

    For inference, weights become constants of the compiled code (inductor's ``freezing``).

    Args:
        form: the form to compile; it stays as it is.
        train: whether its steps are training steps.
        backend: of ``torch.compile``.
    """
    begin = time.perf_counter()
    model = copy.deepcopy(form.model)
    freeze = not train and backend == 'inductor'
    model.compile(dynamic=False, backend=backend, options={'freezing': True} if freeze else None)
    how = f'{form.how} compiled'.strip()
    compiled = eager_form(form.source, model, form.image, form.dtype, train, how)
    compiled.call()
    return replace(compiled, first_call=time.perf_counter() - begin)


def exported_forms(
    form: Form,
    runtimes: Sequence[str],
    subject: Subject | None = None,
    dtypes: Sequence[str] = ('fp32',),
) -> list[Form]:
    """The same module exported to ONNX and run by other runtimes, with PyTorch's thread count.

    Args:
        form: an inference form in fp32.
        runtimes: keys of `RUNTIMES`.
        dtypes: keys of `DTYPES`; ``bf16`` is measured in OpenVINO too, everything else in fp32.
        subject: its module, compared on the form's image too; None for the form's module as it is.

    Raises:
        UserError: the exported file deviates.
    """
    if not runtimes:
        return []
    begin = time.perf_counter()
    image = form.image.contiguous().numpy()
    if subject is None:
        names = [f'level{i}' for i in range(len(form.call()))]
        height, width = form.image.shape[2:]
        subject = Subject(form.model, names, (height, width))
    else:
        subject = replace(subject, pictures=[image])
    forms = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'model.onnx')
        export_subject(subject, file)
        exporting = time.perf_counter() - begin
        opened = [('fp32', runtime, RUNTIMES[runtime]) for runtime in runtimes]
        if 'openvino' in runtimes and 'bf16' in dtypes:
            opened.append(('bf16', 'openvino', partial(OpenvinoSession, precision='bf16')))
        for dtype, runtime, open_session in opened:
            begin = time.perf_counter()
            call = partial(open_session(file).run, image)
            call()
            taken = exporting + time.perf_counter() - begin
            forms.append(replace(form, dtype=dtype, how=runtime, call=call, first_call=taken))
    return forms


def file_form(form: Form, file: str) -> Form:
    """A form that runs an exported file on a form's image.

    Raises:
        UserError: the file cannot be opened, or has an input of another size.
    """
    begin = time.perf_counter()
    session, (height, width) = open_file(file), form.image.shape[2:]
    if session.size not in (None, (height, width)):
        raise UserError(
            f'--files {file}: its input is {"x".join(map(str, session.size or ()))}, and the table '
            f'is of {height}x{width}: give --sizes'
        )
    call = partial(session.run, form.image.contiguous().numpy())
    call()
    dtype, taken = session.metadata.get('precision', 'fp32'), time.perf_counter() - begin
    return replace(form, dtype=dtype, how=Path(file).name, call=call, first_call=taken)


# Both open the same ONNX file.
RUNTIMES: dict[str, Callable[[Path], Session]] = {
    'onnxruntime': OnnxSession,
    'openvino': OpenvinoSession,
}


def timm_models(name: str, train: bool) -> dict[str, nn.Module]:
    """timm's feature pyramid in both memory layouts, reparameterised for inference.

    Args:
        name: timm's name of the model.
        train: build the training form instead.

    Returns:
        Models by memory layout; empty if timm has no model of that name.

    Raises:
        UserError: timm cannot be imported.
    """
    timm = import_timm()
    if name not in timm.list_models():
        return {}
    # Only the levels that ours has too: those of stride 4 and more.
    strides = timm.create_model(name, features_only=True).feature_info.reduction()
    levels = [index for index, stride in enumerate(strides) if stride >= 4]
    model = timm.create_model(name, features_only=True, out_indices=levels).train(train)
    if not train:
        model = timm.utils.reparameterize_model(model)
    channels_last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    return {'': model, 'channels_last': channels_last}
