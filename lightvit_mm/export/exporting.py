"""The export of tools/export.py: written, run, compared with PyTorch, and only then named."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from lightvit_mm.errors import UserError
from lightvit_mm.export.compare import TOLERANCE, Compared, CompareMaps
from lightvit_mm.export.formats import Format, format_of
from lightvit_mm.export.subject import (
    Subject,
    build_subject,
    calibration_inputs,
    compared_sizes,
)
from lightvit_mm.files import check_output_file, whole_files
from lightvit_mm.measure.timing import alternate
from lightvit_mm.runtimes.session import METADATA, Session, Size, open_file

__all__ = ['Exported', 'Quantised', 'export', 'export_subject']

# The least agreement of an 8-bit file with PyTorch; without --image, this many images of
# --quantize show it.
LEAST_AGREEMENT, AGREEMENT_IMAGES = 0.5, 10


@dataclass
class Quantised:
    """The 8-bit file of an export.

    Attributes:
        file: the file.
        layers: number of layers that compute in 8 bits.
        images: number of images from which the ranges were measured.
        seconds: median latencies of the exact file and of this one, measured in turn with
            PyTorch's number of threads.
        agreement: how far the results agree with PyTorch's, see `agreement` in
            `lightvit_mm.export.compare`; None if no image has a confident detection.
    """

    file: Path
    layers: int
    images: int
    seconds: tuple[float, ...]
    agreement: float | None


@dataclass
class Exported:
    """Result of an export.

    Attributes:
        file: the file.
        outputs: names of the outputs in order.
        checked: the comparison with PyTorch on each image.
        unit: unit of the deviations.
        int8: the 8-bit file, if one was requested.
    """

    file: Path
    outputs: list[str]
    checked: list[Compared]
    unit: str
    int8: Quantised | None = None

    @property
    def deviation(self) -> float:
        """The largest deviation of all images."""
        # Unlike max(), this always returns NaN if there is one.
        return float(np.max([compared.deviation for compared in self.checked]))


def export(
    config: Config,
    checkpoint: str,
    out: str,
    size: Size,
    dynamic: bool = False,
    backbone_only: bool = False,
    images: Sequence[str] = (),
    quantize: str | None = None,
    precision: str = 'fp32',
    full_integer: bool = False,
) -> Exported:
    """Export the deploy form of a trained model, and compare the file with PyTorch.

    Args:
        config: config of the model, from `load_config`.
        checkpoint: its weights.
        out: the file to write; its suffix says the format, see `lightvit_mm.export.formats`.
        size: height and width of the input.
        dynamic: leave height and width open, for multiples of 32, and the batch of a backbone.
        backbone_only: export the pyramid, with outputs ``level0``, ``level1``...; otherwise a whole
            segmentor, with ``logits`` at the size of the input, or a whole detector, see
            `lightvit_mm.export.detections`.
        images: files to compare on in addition to random images, resized to ``size``. A whole
            detector needs some in which it finds objects.
        quantize: folder, file or glob pattern of images. With them, an 8-bit file is also made:
            ``model.int8.onnx`` next to ``model.onnx``.
        precision: of the weights in the file: ``fp32``, or ``fp16`` for weights in half the space.
        full_integer: in the 8-bit file, everything up to the last layers is in integers.

    Raises:
        UserError: a package is missing, the format or the model does not support what was asked
            for, the checkpoint does not fit the config, an image cannot be read, the file does not
            run or deviates, or ``out`` is something else or cannot be written.
    """
    if quantize == '':
        raise UserError(
            '--quantize is empty: give a folder of images, one image or a quoted pattern, or leave '
            'it out'
        )
    if full_integer and not quantize:
        raise UserError('--full-integer is for the file that --quantize IMAGES makes: give both')
    form = format_of(out, precision, dynamic, bool(quantize), full_integer)
    int8 = Path(out).with_suffix(f'.int8{Path(out).suffix}')
    for file in (Path(out), int8) if quantize else (Path(out),):
        _check_output(file, form, [checkpoint, *images])
    subject = build_subject(
        config, checkpoint, size, dynamic, backbone_only, images, quantize, precision, form.nms
    )
    subject.full_integer = full_integer
    made = export_subject(subject, out)
    if quantize:
        made.int8 = _quantized(subject, made.file, int8, form)
    return made


@torch.no_grad()
def export_subject(subject: Subject, out: str | Path) -> Exported:
    """Export a subject, and compare the file with it.

    The file appears only after the comparison has passed; until then, an older file of the same
    name stays.

    Args:
        subject: what to export; its module is set to eval mode.
        out: the file to write; its folder is made.

    Raises:
        UserError: the file does not run, deviates by more than `TOLERANCE`, or no detection
            could be compared.
    """
    form, out = format_of(out, subject.precision, subject.dynamic), Path(out)
    subject.whole.eval()
    compare = subject.compare or CompareMaps(subject.whole)
    sizes = compared_sizes(subject.size, subject.dynamic)
    rng = np.random.default_rng(0)
    # Whole numbers, since the input of some formats is bytes.
    inputs = [rng.integers(0, 256, (1, 3, *size)).astype('float32') for size in sizes]
    with whole_files(out) as part:
        form.writer.write(subject, part)
        session = open_file(part) if form.runs else form.writer.ConvertedGraph(subject)
        checked = [compare(x, _run(session, x)) for x in (*inputs, *subject.pictures)]
        exported = Exported(out, session.outputs, checked, compare.unit)
        if not exported.deviation <= TOLERANCE:
            raise UserError(
                f'the export deviates from PyTorch by {exported.deviation:.1e} '
                f'({compare.unit}), more than {TOLERANCE:.0e}; {out} was not written. Try another '
                '--size, or leave --dynamic out, and please report this'
            )
        if not any(compared.detections != 0 for compared in checked):
            raise UserError(
                f'the detector finds nothing in any image, so nothing was compared; {out} '
                'was not written. Give --image and files that show objects of its classes'
            )
        if subject.precision != 'fp32' and form.runs:
            form.writer.compress(part)
            _run(open_file(part), inputs[0])
    return exported


def _check_output(file: Path, form: Format, inputs: Sequence[str]) -> None:
    if form.inside and file.is_dir() and not (file / form.inside).exists():
        raise UserError(f'OUT {file} is a folder that this tool did not write: give another name')
    if file.is_symlink():
        target = Path(os.path.realpath(file))
        if form.beside or not target.name.lower().endswith(form.suffix):
            raise UserError(
                f'OUT {file} is a link to {target}: give the name of the file itself, which must '
                f'end in {form.suffix}'
            )
    check_output_file(file / form.inside, 'OUT', form.mark, inputs)
    content = file / form.inside
    if content.exists() and content.stat().st_size and not _is_ours(content, form):
        raise UserError(
            f'OUT {file} exists, and nothing in it shows that this tool wrote it: give another '
            'name, or move it away'
        )
    for suffix in form.beside:
        other = file.with_suffix(suffix)
        # Nothing in it shows who wrote it, but it belongs to a file that this tool wrote.
        check_output_file(other, f'{suffix} of OUT', b'', inputs)
        if other.exists() and not file.exists():
            raise UserError(
                f'OUT {file}: {other}, which belongs to it, exists already, and nothing shows that '
                'this tool wrote it: give another name, or move it away'
            )


def _is_ours(file: Path, form: Format) -> bool:
    if '.json' in form.beside:
        return file.with_suffix('.json').exists()
    return METADATA.encode() in file.read_bytes()


@torch.no_grad()
def _quantized(subject: Subject, file: Path, out: Path, form: Format) -> Quantised:
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, *subject.size)).astype('float32')
    with whole_files(out) as part:
        subject.metadata['precision'] = 'int8'
        layers = form.writer.quantize(subject, file, part)
        agreement = _agreement(subject, open_file(part))
        if agreement is not None and not agreement >= LEAST_AGREEMENT:
            raise UserError(
                f'the 8-bit file agrees with PyTorch only to {agreement:.0%}, so {out} was not '
                f'written; {file}, which is exact, was. Give more typical --quantize images'
                + (', or leave --full-integer out' if subject.full_integer else '')
            )
        calls = {str(path): partial(_run, open_file(path), image) for path in (file, part)}
        seconds = alternate(calls, rounds=20, min_seconds=2.0)
    medians = tuple(float(np.median(values)) for values in seconds.values())
    return Quantised(out, layers, len(subject.calibration), medians, agreement)


def _agreement(subject: Subject, session: Session) -> float | None:
    compare = subject.compare or CompareMaps(subject.whole)
    some = replace(subject, calibration=subject.calibration[:AGREEMENT_IMAGES])
    images = subject.pictures or calibration_inputs(some, 'comparing with PyTorch')
    found = [compare.agreement(image, _run(session, image)) for image in images]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else None


def _run(session: Session, image: np.ndarray) -> dict[str, np.ndarray]:
    try:
        return session.run(image)
    except Exception as error:  # the runtimes' errors have no common base class
        raise UserError(
            f'the export fails on {image.shape}: {error}. Nothing was written; leave --dynamic out '
            'if it was given, and please report this'
        ) from error
