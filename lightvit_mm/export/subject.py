"""What tools/export.py exports: the deploy form of a trained model, and everything to check it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.config import Config
from rich.progress import track
from torch import nn

import lightvit_mm
from lightvit_mm.errors import UserError
from lightvit_mm.export.compare import CompareDetections, CompareMaps
from lightvit_mm.export.modules import Preprocessing, SegmentorLogits
from lightvit_mm.runtimes.images import fit_image, inner_size, padding_of
from lightvit_mm.runtimes.session import DYNAMIC_MULTIPLE, Size

__all__ = ['Subject', 'build_subject', 'calibration_inputs', 'compared_sizes', 'whole_subject']

# torch specialises graphs to sizes of 0 and 1, so the example must have a larger batch.
DYNAMIC_BATCH = 2


@dataclass
class Subject:
    """A module to export.

    Attributes:
        whole: takes images (N, 3, H, W), float32 from 0 to 255, channels in the order blue, green,
            red, and returns one tensor or a tuple of them; in eval mode. It may end in
            `lightvit_mm.export.raw.RawDetections`; then the runtime makes the outputs of that.
        names: names of the outputs.
        size: height and width of the input.
        dynamic: leave height and width open, and the batch if it is more than 1.
        batch: N of the example.
        pictures: (1, 3, H, W) arrays to compare on in addition to random ones.
        compare: the comparison with PyTorch; None compares the outputs themselves.
        metadata: what the file tells about itself.
        precision: of the weights in the file, ``fp32`` or ``fp16``.
        full_integer: whether everything up to the last layers of an 8-bit file is in integers.
        calibration: images from which 8-bit ranges are measured.
        padding: see `fit_image`.
        onnx: the ONNX file from which the 8-bit one of another format is made.
    """

    whole: nn.Module
    names: Sequence[str]
    size: Size
    dynamic: bool = False
    batch: int = 1
    pictures: Sequence[np.ndarray] = ()
    compare: CompareMaps | CompareDetections | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    precision: str = 'fp32'
    full_integer: bool = False
    calibration: Sequence[Path] = ()
    padding: np.ndarray = field(default_factory=lambda: np.zeros(3, 'float32'))
    onnx: bytes | None = None


def compared_sizes(size: Size, dynamic: bool) -> list[Size]:
    """The sizes to compare a file at: its own, and if it is open transposed and larger."""
    height, width = size
    larger = (height + 2 * DYNAMIC_MULTIPLE, width + DYNAMIC_MULTIPLE)
    return [size, (width, height), larger] if dynamic else [size]


def build_subject(
    config: Config,
    checkpoint: str,
    size: Size,
    dynamic: bool = False,
    backbone_only: bool = False,
    images: Sequence[str] = (),
    quantize: str | None = None,
    precision: str = 'fp32',
    nms: bool = True,
) -> Subject:
    """Load a trained model and read the images to export it with; for the arguments see `export`.

    Args:
        nms: see `whole_subject`.

    Raises:
        UserError: the model cannot be exported so, the checkpoint does not fit the config, or an
            image cannot be read.
    """
    if dynamic and any(side % DYNAMIC_MULTIPLE for side in size):
        raise UserError(
            f'--dynamic is for sizes that are multiples of {DYNAMIC_MULTIPLE}: give such a --size, '
            f'not {size[0]} {size[1]}'
        )
    is_detector = not backbone_only and config.default_scope == 'mmdet'
    if is_detector and not images:
        raise UserError(
            f'{config.model.type}: a whole detector is compared by its detections: give --image '
            'and files that show objects of its classes (or --backbone-only)'
        )
    settings = config.model.get('data_preprocessor') or {}
    sizes = compared_sizes(size, dynamic)
    pictures = [_read_picture(file, s) for file in images for s in sizes]
    if not backbone_only and not is_detector:
        _check_segmentor(config, dynamic)
    # Imported here because exporting a module does not need OpenMMLab's heads.
    from lightvit_mm.engine.predicting import find_images
    from lightvit_mm.engine.trained_model import load_model

    calibration = find_images(quantize)[1] if quantize else []
    for file in calibration:
        _read(file, '--quantize')  # an error should come before the work, not after it
    model = load_model(config, checkpoint, 'cpu', backbone_only)
    if dynamic and not getattr(model.backbone, 'open_size', True):
        raise UserError(
            f'{type(model.backbone).__name__} cannot be exported with --dynamic: its graph depends '
            'on the size. Leave --dynamic out and export one file for each --size'
        )
    if backbone_only:
        batch = DYNAMIC_BATCH if dynamic else 1
        names = [f'level{i}' for i in range(len(model.backbone.out_channels))]
        made = Subject(Preprocessing(model.backbone, settings), names, size, batch=batch)
        made.metadata['task'] = 'backbone'
    else:
        made = whole_subject(model, settings, size, is_detector, nms)
        classes, palette = (model.dataset_meta.get(key) for key in ('classes', 'palette'))
        colours = palette if isinstance(palette, str) or not palette else palette[: len(classes)]
        made.metadata |= {'classes': classes, 'palette': colours}
    return replace(
        made,
        dynamic=dynamic,
        pictures=pictures,
        metadata=made.metadata | _metadata(config, size, precision),
        precision=precision,
        calibration=calibration,
        padding=padding_of(settings),
    )


def whole_subject(
    model: Any, settings: Mapping[str, Any], size: Size, is_detector: bool, nms: bool = True
) -> Subject:
    """The subject that a whole detector or segmentor is.

    Args:
        model: in deploy form.
        settings: ``data_preprocessor`` of its config.
        size: height and width of the input.
        is_detector: whether it is one of mmdet.
        nms: whether a detector's graph includes NMS; if not, the runtime chooses the detections.

    Raises:
        UserError: it cannot be exported, or not at this size.
    """
    if not is_detector:
        network = Preprocessing(SegmentorLogits(model), settings).eval()
        return Subject(network, ['logits'], size, metadata={'task': 'segmentation'})
    from lightvit_mm.export.detections import check_size, detections_of

    check_size(model, size)
    detections: Any
    if nms:
        detections = detections_of(model)
        names, choice = list(detections.outputs), {}
    else:
        from lightvit_mm.export.raw import raw_detections_of

        detections = raw_detections_of(model, size)
        names, choice = ['boxes', 'scores', 'labels'], {'choice': detections.choice}
    network = Preprocessing(detections, settings).eval()
    compare = CompareDetections(model, Preprocessing(nn.Identity(), settings), names)
    limits = compare.limits
    metadata = {
        'task': 'detection',
        'score_thr': limits.score,
        'iou_threshold': limits.iou,
        'max_per_img': limits.places,
        **choice,
    }
    return Subject(network, names, size, compare=compare, metadata=metadata)


def calibration_inputs(subject: Subject, title: str = 'measuring ranges') -> Iterator[np.ndarray]:
    """The images from which 8-bit ranges are measured, (1, 3, H, W) as the file takes them.

    Args:
        subject: its ``calibration`` are the files.
        title: of the progress bar.

    Raises:
        UserError: one cannot be read.
    """
    size = subject.size
    for file in track(subject.calibration, description=title):
        image = _read(file, '--quantize')
        height, width = inner_size(image.shape[:2], size)
        image = mmcv.imresize(image, (width, height))
        yield fit_image(image, size, subject.padding)[0]


def _metadata(config: Config, size: Size, precision: str) -> dict[str, Any]:
    from lightvit_mm.engine.exported_model import fit_pipeline

    settings = config.model.get('data_preprocessor') or {}
    data = config.get('test_dataloader') or {'dataset': {}}
    pipeline = copy.deepcopy(data['dataset'].get('pipeline') or [])
    pad = fit_pipeline(pipeline, size)
    # Without one, larger images are shrunk to the size.
    resizes = [step for step in pipeline if step['type'] == 'Resize']
    resize = resizes[0] if resizes else {'keep_ratio': True}
    factor = 1.0
    if not resize.get('scale'):
        factor = resize.get('scale_factor') or 1.0
        if not isinstance(factor, (int, float)):
            raise UserError(
                f'the Resize of the test pipeline has scale_factor={factor}: give one number for '
                'both sides, or a scale'
            )
        resize = resize | {'keep_ratio': True}
    return {
        'config': Path(config.filename or '').stem,
        'version': lightvit_mm.__version__,
        'precision': precision,
        'size': list(size),
        'resize': {
            'scale': resize.get('scale'),  # width and height, as in the config
            'scale_factor': float(factor),  # where there is no scale
            'keep_ratio': bool(resize.get('keep_ratio', False)),
            'pad': [float(value) for value in (padding_of(settings) if pad is None else pad)],
        },
    }


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


def _read_picture(file: str, size: Size) -> np.ndarray:
    if not Path(file).is_file():
        raise UserError(f'--image {file} does not exist')
    height, width = size
    image = mmcv.imresize(_read(file, '--image'), (width, height))
    return image[None].transpose(0, 3, 1, 2).astype('float32')


def _read(file: str | Path, option: str) -> np.ndarray:
    try:
        image = mmcv.imread(file, channel_order='bgr')
    except cv2.error:  # OpenCV's answer to an empty file
        image = None
    if image is None:
        raise UserError(f'{option} {file} is not an image that OpenCV can decode')
    return image
