"""The formats of exported files. The suffix of a file says its format."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightvit_mm.errors import UserError
from lightvit_mm.export.converters import python_with
from lightvit_mm.runtimes.session import require_packages

__all__ = ['FORMATS', 'Format', 'format_of']


@dataclass(frozen=True)
class Format:
    """A format that tools/export.py writes.

    Attributes:
        suffix: end of a file's name.
        name: the format's name.
        module: module of `lightvit_mm.export` with ``write(subject, part)`` and, with ``int8``,
            ``quantize(subject, file, part)``, with ``precisions`` also ``compress(part)``.
        extra: extra of this package that installs ``packages``.
        packages: modules that writing needs.
        mark: regular expression that matches the first bytes of such files.
        beside: suffixes of the files that belong to it.
        inside: if it is a folder, the file in it that has the mark.
        precisions: choices of ``--precision``.
        dynamic: whether ``--dynamic`` is possible.
        int8: whether ``--quantize`` is possible.
        full_integer: whether ``--full-integer`` is possible.
        nms: whether NMS and RoIAlign can be in the graph; if not, a detector's graph ends before
            them, see `lightvit_mm.export.raw`.
        converter: module that ``.venv-EXTRA`` may have instead of this environment.
        runs: whether such files run here; if not, ``module.ConvertedGraph(subject)`` is compared
            with PyTorch instead.
    """

    suffix: str
    name: str
    module: str
    extra: str
    packages: tuple[str, ...]
    mark: bytes
    beside: tuple[str, ...] = ()
    inside: str = ''
    precisions: tuple[str, ...] = ('fp32',)
    dynamic: bool = False
    int8: bool = False
    full_integer: bool = False
    nms: bool = True
    converter: str | None = None
    runs: bool = True

    @property
    def writer(self) -> Any:
        """The module that writes it."""
        return importlib.import_module(f'{__package__}.{self.module}')


ONNX_PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')
FORMATS = (
    Format(
        '.onnx',
        'ONNX',
        'onnx',
        'onnx',
        ONNX_PACKAGES,
        # Such files begin with their version and the name of the library that made them.
        rb'(?s)\A\x08.{0,8}(pytorch|onnx\.quantize)',
        dynamic=True,
        int8=True,
    ),
    Format(
        '.xml',
        'OpenVINO',
        'openvino',
        'openvino',
        (*ONNX_PACKAGES, 'openvino'),
        rb'\A<\?xml[^>]*>\s*<net ',
        beside=('.bin',),
        precisions=('fp32', 'fp16'),
        dynamic=True,
        int8=True,
    ),
    Format(
        '.tflite',
        'LiteRT',
        'litert',
        'litert',
        ('ai_edge_litert',),
        rb'(?s)\A.{4}TFL3',
        int8=True,
        full_integer=True,
        nms=False,
        converter='litert_torch',
    ),
    Format(
        '.pte',
        'ExecuTorch',
        'executorch',
        'executorch',
        ('executorch',),
        rb'(?s)\A.{4}ET12',
        nms=False,
    ),
    Format(
        '.ncnn.param',
        'ncnn',
        'ncnn',
        'ncnn',
        ('ncnn', 'pnnx'),
        rb'\A7767517\n',
        beside=('.bin', '.json'),
        nms=False,
    ),
    Format(
        '.mlpackage',
        'Core ML',
        'coreml',
        'coreml',
        (),
        rb'lightvit_mm',
        inside='Data/com.apple.CoreML/model.mlmodel',
        precisions=('fp32', 'fp16'),
        nms=False,
        converter='coremltools',
        runs=False,
    ),
)


def format_of(
    out: str | Path,
    precision: str = 'fp32',
    dynamic: bool = False,
    int8: bool = False,
    full_integer: bool = False,
) -> Format:
    """The format that the name of a file asks for, after checking that it can be written.

    Args:
        out: the file.
        precision, dynamic, int8, full_integer: what the file is to have.

    Raises:
        UserError: the suffix is unknown, the format cannot have one of these, or a package is
            missing.
    """
    name = Path(out).name.lower()
    form = next((form for form in FORMATS if name.endswith(form.suffix)), None)
    if form is None:
        choices = ', '.join(f'{form.suffix} ({form.name})' for form in FORMATS)
        raise UserError(f'OUT {out}: its suffix says the format, and must be one of {choices}')
    for option, asked, able in (
        ('--dynamic', dynamic, lambda other: other.dynamic),
        ('--quantize', int8, lambda other: other.int8),
        ('--full-integer', full_integer, lambda other: other.full_integer),
        (f'--precision {precision}', True, lambda other: precision in other.precisions),
    ):
        if asked and not able(form):
            others = ', '.join(other.suffix for other in FORMATS if able(other))
            raise UserError(
                f'OUT {out}: {option} is not possible for {form.name}, only for {others}'
            )
    require_packages(form.packages, form.extra)
    if form.converter:
        python_with(form.converter, form.extra)
    return form
