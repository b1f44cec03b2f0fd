"""ONNX files, by torch.onnx."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lightvit_mm.export.int8 import quantize_onnx
from lightvit_mm.export.onnx_ops import translations
from lightvit_mm.export.subject import Subject, calibration_inputs
from lightvit_mm.runtimes.session import INPUT, METADATA

__all__ = ['quantize', 'write']


@torch.no_grad()
def write(subject: Subject, part: Path) -> None:
    """Write a subject as an ONNX file."""
    shapes = None
    if subject.dynamic:
        open_axes = (2, 3) if subject.batch == 1 else (0, 2, 3)
        shapes = (dict.fromkeys(open_axes, torch.export.Dim.DYNAMIC),)
    with _quiet():
        program = torch.onnx.export(
            subject.whole,
            (torch.rand(subject.batch, 3, *subject.size) * 255,),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(subject.names),
            dynamic_shapes=shapes,
            custom_translation_table=translations(),
            verbose=False,
        )
    assert program is not None
    _turn_products(program.model)
    if subject.metadata:
        program.model.metadata_props[METADATA] = json.dumps(subject.metadata)
    program.save(part)


def quantize(subject: Subject, file: Path, part: Path) -> int:
    """Write an ONNX file in 8 bits; returns the number of layers that are.

    Args:
        subject: its images are used.
        file: the file that `write` made of it.
        part: the file to write.

    Raises:
        UserError: an image cannot be read, or there is too little space for temporary files.
    """
    layers = quantize_onnx(file, part, calibration_inputs(subject))
    import onnx

    model = onnx.load(part)
    onnx.helper.set_model_props(model, {METADATA: json.dumps(subject.metadata)})
    onnx.save(model, part)
    return layers


def _turn_products(model: Any) -> None:
    """Compute ``(A B^T)^T`` as ``B A^T``: runtimes transpose a second factor as they multiply.

    PyTorch is faster with the first form, which keeps EfficientViT's attention in channels_last.
    """
    from onnxscript.rewriter import pattern

    swap = [0, 2, 1]

    def product(op: Any, left: Any, right: Any) -> Any:
        return op.Transpose(op.MatMul(left, op.Transpose(right, perm=swap)), perm=swap)

    def turned(op: Any, left: Any, right: Any) -> Any:
        return op.MatMul(right, op.Transpose(left, perm=swap))

    pattern.RewriteRuleSet([pattern.RewriteRule(product, turned)]).apply_to_model(model)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress torch's warnings about missing torchvision operators and its own code."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
