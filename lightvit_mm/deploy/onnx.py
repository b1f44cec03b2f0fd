"""Export to ONNX, checked in onnxruntime: what tools/export_onnx.py does.

The graph begins with the preprocessing of the config, so that the input is an image as OpenCV reads
it, of the size of the export: ``image[None].transpose(0, 3, 1, 2).astype('float32')`` in numpy.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from lightvit_mm.errors import UserError

TOLERANCE = 1e-3
INPUT = 'image'
NEEDED = ('onnx', 'onnxscript', 'onnxruntime')
# torch specialises graphs to sizes of 0 and 1, so the example must have none where it is to vary.
DYNAMIC_BATCH = 2
# A graph has no branches. Where 32 divides both sides, no family but those with open_size = False
# ever pads, so that the way of the example is right for every such size.
DYNAMIC_MULTIPLE = 32

Size = tuple[int, int]


@dataclass
class Exported:
    """What `export_onnx` made.

    Attributes:
        file: the ONNX file.
        outputs: names of the outputs in order.
        checked: the size of each checked input, (N, 3, H, W), with the largest difference of
            onnxruntime from PyTorch in standard deviations of the output.
    """

    file: Path
    outputs: list[str]
    checked: list[tuple[tuple[int, ...], float]]

    @property
    def deviation(self) -> float:
        """The largest of all."""
        # NaN has to come out, which max() would not promise.
        return float(np.max([deviation for _, deviation in self.checked]))


class Preprocessing(nn.Module):
    """Channel order and normalisation of a config's ``data_preprocessor``, then a network.

    Takes (N, 3, H, W) float32 in blue, green, red order with values from 0 to 255.

    Args:
        network: gets the normalised images.
        settings: ``mean``, ``std``, ``bgr_to_rgb`` and ``rgb_to_bgr`` of the config are used.
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
        """Reorder, normalise, run the network."""
        if self.swap:
            image = image.flip(1)
        return self.network((image - self.mean) / self.std)


class SegmentorLogits(nn.Module):
    """A segmentor as a module from normalised images to logits (N, classes, H, W)."""

    def __init__(self, segmentor: nn.Module) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits at the size of the images."""
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
) -> Exported:
    """Export the deploy form of a trained model, and compare the file with PyTorch.

    Args:
        config: as `load_config` gives it.
        checkpoint: the weights.
        out: the file to write; its folder is made. A file of that name is replaced at the end.
        size: height and width of the input.
        dynamic: leave batch, height and width open, the latter for multiples of 32.
        backbone_only: the pyramid, outputs ``level0``, ``level1``...; else a whole segmentor,
            output ``logits`` at the size of the input.
        images: files that are compared besides random images, resized to ``size``.

    Raises:
        UserError: a package is missing, the model is of a kind that cannot be exported, an image
            cannot be read, or the file does not run.
    """
    require_packages()
    if dynamic and any(side % DYNAMIC_MULTIPLE for side in size):
        raise UserError(
            f'--dynamic is for sizes that are multiples of {DYNAMIC_MULTIPLE}: give such a --size, '
            f'not {size[0]} {size[1]}'
        )
    pictures = [_read_image(file, size) for file in images]
    if not backbone_only:
        _check_exportable(config, dynamic)
    # Not at the top: OpenMMLab's heads are not needed to export a module that is there already.
    from lightvit_mm.engine.predicting import load_model

    model = load_model(config, checkpoint, 'cpu')
    if dynamic and not getattr(model.backbone, 'open_size', True):
        raise UserError(
            f'{type(model.backbone).__name__} cannot be exported with --dynamic: its graph depends '
            'on the size. Leave --dynamic out and export one file for each --size'
        )
    if backbone_only:
        network: nn.Module = model.backbone
        names = [f'level{i}' for i in range(len(model.backbone.out_channels))]
    else:
        network, names = SegmentorLogits(model), ['logits']
    return export_module(
        Preprocessing(network, config.model.get('data_preprocessor') or {}),
        out,
        names,
        size,
        dynamic,
        pictures,
    )


@torch.no_grad()
def export_module(
    module: nn.Module,
    out: str | Path,
    names: Sequence[str],
    size: Size,
    dynamic: bool = False,
    pictures: Sequence[np.ndarray] = (),
) -> Exported:
    """Export a module that takes images (N, 3, H, W), and compare the file with it.

    The file appears under its name only when the comparison has passed; whatever had that name
    before stays otherwise.

    Args:
        module: in eval mode, with one tensor or a tuple of them as output.
        out: the file to write.
        names: one for each output.
        size: height and width of the input.
        dynamic: leave batch, height and width open; another size is then compared too.
        pictures: (1, 3, H, W) arrays that are compared besides random ones.

    Raises:
        UserError: the file does not run, or deviates by more than `TOLERANCE`.
    """
    module = module.eval()
    example = torch.rand(DYNAMIC_BATCH if dynamic else 1, 3, *size) * 255
    shapes = None
    if dynamic:
        varying = torch.export.Dim.DYNAMIC
        shapes = ({0: varying, 2: varying, 3: varying},)
    with _quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(names),
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f'.{out.name}.{os.getpid()}.part')
    sizes = [size, *other_sizes(size)] if dynamic else [size]
    inputs = [np.random.default_rng(0).uniform(0, 255, (1, 3, *s)).astype('f4') for s in sizes]
    try:
        program.save(part)
        session = _session(part)
        checked = [(x.shape, _deviation(module, session, x)) for x in (*inputs, *pictures)]
        exported = Exported(out, list(names), checked)
        if not exported.deviation <= TOLERANCE:
            raise UserError(
                f'the export deviates from PyTorch by {exported.deviation:.1e} standard '
                f'deviations, more than {TOLERANCE:.0e}; {out} was not written. Try another '
                '--size, or without --dynamic, and report it'
            )
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return exported


def other_sizes(size: Size) -> list[Size]:
    """Sizes that a file with open height and width is compared at: turned round, and larger."""
    height, width = size
    return [(width, height), (height + 2 * DYNAMIC_MULTIPLE, width + DYNAMIC_MULTIPLE)]


def require_packages() -> None:
    """Check that what the export needs is installed.

    Raises:
        UserError: something is not.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f'{", ".join(missing)} not installed, which the export needs: '
            f'pip install {" ".join(missing)}  (or pip install -e ".[onnx]" in the checkout)'
        )


def _check_exportable(config: Config, dynamic: bool) -> None:
    kind = config.model.type
    if config.default_scope != 'mmseg':
        raise UserError(
            f'{kind}: whole detectors cannot be exported yet; export the pyramid with '
            '--backbone-only'
        )
    if dynamic:
        # mmseg's heads round sizes with int(), which puts those of the example into the graph.
        raise UserError(
            f'{kind}: --dynamic is for --backbone-only, since the heads of mmseg fix the size; '
            'leave --dynamic out and export one file for each --size'
        )
    if config.model.get('test_cfg', {}).get('mode', 'whole') != 'whole':
        raise UserError(
            f'{kind} is tested by sliding a window (test_cfg.mode), which is no part of a graph: '
            'give --cfg-options model.test_cfg.mode=whole, and the window as --size'
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


def _session(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])


def _deviation(module: nn.Module, session: Any, image: np.ndarray) -> float:
    """Largest difference of the file from the module, in standard deviations of each output."""
    expected = module(torch.from_numpy(image))
    expected = expected if isinstance(expected, (tuple, list)) else [expected]
    try:
        outputs = session.run(None, {INPUT: image})
    except RuntimeError as error:  # the base of onnxruntime's own
        raise UserError(
            f'the export fails on {image.shape}: {error}. Nothing was written; leave --dynamic out '
            'if it was given, and report it'
        ) from error
    deviations = []
    for output, value in zip(outputs, expected, strict=True):
        reference = value.numpy()
        if output.shape != reference.shape:
            raise UserError(
                f'the export makes {output.shape} of {image.shape} where PyTorch makes '
                f'{reference.shape}. Nothing was written; leave --dynamic out if it was given, '
                'and report it'
            )
        spread = max(float(reference.std()), 1e-12)
        deviations.append(float(np.abs(output - reference).max()) / spread)
    # NaN has to come out as the largest deviation, which max() would not promise.
    return float(np.max(deviations))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from warning about operators of torchvision and about its own code."""
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
