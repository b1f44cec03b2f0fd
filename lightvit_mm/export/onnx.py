"""The export of tools/export_onnx.py: to ONNX, checked in onnxruntime.

The graph includes the config's preprocessing. Its input is an image as OpenCV reads it, resized to
the exported size: ``image[None].transpose(0, 3, 1, 2).astype('float32')`` in numpy.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from lightvit_mm.errors import UserError
from lightvit_mm.export.compare import TOLERANCE, Compared, CompareDetections, CompareMaps
from lightvit_mm.export.onnx_ops import translations
from lightvit_mm.files import check_output_file, whole_file
from lightvit_mm.runtimes.onnxruntime import (
    DYNAMIC_MULTIPLE,
    INPUT,
    METADATA,
    Size,
    open_session,
    padding_of,
    require_packages,
)

if TYPE_CHECKING:
    from lightvit_mm.export.int8 import Quantised

# ONNX files begin with their version and the name of the library that made them.
MADE_HERE = rb'(?s)\A\x08.{0,8}(pytorch|onnx\.quantize)'
# torch specialises graphs to sizes of 0 and 1, so the example must have a larger batch.
DYNAMIC_BATCH = 2


@dataclass
class Exported:
    """Result of an export.

    Attributes:
        file: the ONNX file.
        outputs: names of the outputs in order.
        checked: the comparison of onnxruntime with PyTorch on each image.
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


class Preprocessing(nn.Module):
    """Channel order and normalisation of a config's ``data_preprocessor``, then a network.

    Takes images (N, 3, H, W), float32 from 0 to 255, with channels in the order blue, green, red.

    Args:
        network: takes the normalised images.
        settings: the config; ``mean``, ``std``, ``bgr_to_rgb`` and ``rgb_to_bgr`` are used.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.swap = bool(settings.get('bgr_to_rgb') or settings.get('rgb_to_bgr'))
        for name, default in (('mean', 0.0), ('std', 1.0)):
            values = settings.get(name) or [default] * 3
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, image: torch.Tensor) -> Any:
        """Reorder the channels, normalise, and run the network."""
        if self.swap:
            image = image.flip(1)
        return self.network((image - self.mean) / self.std)


class SegmentorLogits(nn.Module):
    """A segmentor as a module from normalised images to logits (N, classes, H, W).

    Args:
        segmentor: the mmseg segmentor.
    """

    def __init__(self, segmentor: nn.Module) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits at the size of the images."""
        segmentor: Any = self.segmentor
        return segmentor.encode_decode(x, [{'img_shape': x.shape[2:]}])


def export_onnx(
    config: Config,
    checkpoint: str,
    out: str,
    size: Size,
    dynamic: bool = False,
    backbone_only: bool = False,
    images: Sequence[str] = (),
    quantize: str | None = None,
) -> Exported:
    """Export the deploy form of a trained model, and compare the file with PyTorch.

    Args:
        config: config of the model, from `load_config`.
        checkpoint: its weights.
        out: the file to write, see `export_module`.
        size: height and width of the input.
        dynamic: leave height and width open, for multiples of 32, and the batch of a backbone.
        backbone_only: export the pyramid, with outputs ``level0``, ``level1``...; otherwise a whole
            segmentor, with ``logits`` at the size of the input, or a whole detector, see
            `lightvit_mm.export.detections`.
        images: files to compare on in addition to random images, resized to ``size``. A whole
            detector needs some in which it finds objects.
        quantize: folder, file or glob pattern of images. With them, an 8-bit file is also made, see
            `lightvit_mm.export.int8`: ``model.int8.onnx`` next to ``model.onnx``.

    Raises:
        UserError: a package is missing, the model cannot be exported, the checkpoint does not fit
            the config, an image cannot be read, the file does not run or deviates, or ``out`` is
            something else or cannot be written.
    """
    require_packages()
    int8 = Path(out).with_suffix(f'.int8{Path(out).suffix}')
    for file in (out, int8) if quantize else (out,):
        check_output_file(file, 'OUT', MADE_HERE, [checkpoint, *images])
    if dynamic and any(side % DYNAMIC_MULTIPLE for side in size):
        raise UserError(
            f'--dynamic is for sizes that are multiples of {DYNAMIC_MULTIPLE}: give such a --size, '
            f'not {size[0]} {size[1]}'
        )
    whole_detector = not backbone_only and config.default_scope == 'mmdet'
    if whole_detector and not images:
        raise UserError(
            f'{config.model.type}: a whole detector is compared by its detections: give --image '
            'and files that show objects of its classes (or --backbone-only)'
        )
    sizes = [size, *other_sizes(size)] if dynamic else [size]
    pictures = [_read_image(file, s) for file in images for s in sizes]
    if not backbone_only and not whole_detector:
        _check_segmentor(config, dynamic)
    # Imported here because exporting a module does not need OpenMMLab's heads.
    from lightvit_mm.engine.predicting import find_images
    from lightvit_mm.engine.trained_model import load_model

    calibration = find_images(quantize)[1] if quantize else []
    model = load_model(config, checkpoint, 'cpu', backbone_only)
    if dynamic and not getattr(model.backbone, 'open_size', True):
        raise UserError(
            f'{type(model.backbone).__name__} cannot be exported with --dynamic: its graph depends '
            'on the size. Leave --dynamic out and export one file for each --size'
        )
    settings = config.model.get('data_preprocessor') or {}
    compare, batch, metadata = None, DYNAMIC_BATCH if dynamic else 1, {}
    if backbone_only:
        network: nn.Module = model.backbone
        names = [f'level{i}' for i in range(len(model.backbone.out_channels))]
    else:
        metadata = {key: model.dataset_meta.get(key) for key in ('classes', 'palette')}
        if whole_detector:
            from lightvit_mm.export.detections import check_size, detections_of

            check_size(model, size)
            network, batch = detections_of(model), 1
            names = list(network.outputs)
            compare = CompareDetections(model, Preprocessing(nn.Identity(), settings), names)
        else:
            network, names = SegmentorLogits(model), ['logits']
    made = export_module(
        Preprocessing(network, settings), out, names, size, dynamic, pictures, compare, batch,
        metadata,
    )  # fmt: skip
    if calibration:
        from lightvit_mm.export.int8 import quantize as to_int8

        made.int8 = to_int8(made.file, int8, calibration, padding_of(settings), size)
    return made


@torch.no_grad()
def export_module(
    module: nn.Module,
    out: str | Path,
    names: Sequence[str],
    size: Size,
    dynamic: bool = False,
    pictures: Sequence[np.ndarray] = (),
    compare: CompareMaps | CompareDetections | None = None,
    batch: int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Exported:
    """Export a module that takes images (N, 3, H, W), and compare the file with it.

    The file appears only after the comparison has passed; until then, an older file of the same
    name stays.

    Args:
        module: returns one tensor or a tuple of them; is set to eval mode.
        out: the file to write; its folder is made.
        names: names of the outputs.
        size: height and width of the input.
        dynamic: leave height and width open, and the batch if it is more than 1; the file is then
            compared at other sizes too.
        pictures: (1, 3, H, W) arrays to compare on in addition to random ones.
        compare: the comparison; None compares the outputs themselves.
        batch: N of the example; None means 2 for a dynamic file and 1 otherwise.
        metadata: stored in the file as JSON.

    Raises:
        UserError: the file does not run, deviates by more than `TOLERANCE`, or no detection could
            be compared.
    """
    module = module.eval()
    compare = compare or CompareMaps(module)
    if batch is None:
        batch = DYNAMIC_BATCH if dynamic else 1
    shapes = None
    if dynamic:
        open_axes = (2, 3) if batch == 1 else (0, 2, 3)
        shapes = (dict.fromkeys(open_axes, torch.export.Dim.DYNAMIC),)
    with _quiet():
        program = torch.onnx.export(
            module,
            (torch.rand(batch, 3, *size) * 255,),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(names),
            dynamic_shapes=shapes,
            custom_translation_table=translations(),
            verbose=False,
        )
    assert program is not None
    if metadata:
        program.model.metadata_props[METADATA] = json.dumps(metadata)
    out = Path(out)
    sizes = [size, *other_sizes(size)] if dynamic else [size]
    inputs = [np.random.default_rng(0).uniform(0, 255, (1, 3, *s)).astype('f4') for s in sizes]
    with whole_file(out) as part:
        program.save(part)
        session = open_session(part)
        checked = [compare(x, _run(session, x)) for x in (*inputs, *pictures)]
        exported = Exported(out, list(names), checked, compare.unit)
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
    return exported


def other_sizes(size: Size) -> list[Size]:
    """Sizes at which to compare a file with open height and width: transposed, and larger."""
    height, width = size
    return [(width, height), (height + 2 * DYNAMIC_MULTIPLE, width + DYNAMIC_MULTIPLE)]


def _check_segmentor(config: Config, dynamic: bool) -> None:
    kind = config.model.type
    if dynamic:
        # mmseg's heads round sizes with int(), which makes those of the example constants.
        raise UserError(
            f'{kind}: segmentors cannot be exported with --dynamic, since mmseg fixes their size; '
            'leave --dynamic out and export one file for each --size'
        )
    if config.model.get('test_cfg', {}).get('mode', 'whole') != 'whole':
        raise UserError(
            f'{kind} is tested with a sliding window (test_cfg.mode), which a graph cannot have: '
            'give --cfg-options model.test_cfg.mode=whole, and the size of the window as --size'
        )


def _read_image(file: str, size: Size) -> np.ndarray:
    import mmcv

    if not Path(file).is_file():
        raise UserError(f'--image {file} does not exist')
    image = mmcv.imread(file, channel_order='bgr')
    if image is None:
        raise UserError(f'--image {file} is not an image that OpenCV can decode')
    height, width = size
    return mmcv.imresize(image, (width, height))[None].transpose(0, 3, 1, 2).astype('float32')


def _run(session: Any, image: np.ndarray) -> list[np.ndarray]:
    try:
        return session.run(None, {INPUT: image})
    except Exception as error:  # onnxruntime's errors have no common base class
        raise UserError(
            f'the export fails on {image.shape}: {error}. Nothing was written; leave --dynamic out '
            'if it was given, and please report this'
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress torch's warnings about missing torchvision operators and its own code."""
    import logging

    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
