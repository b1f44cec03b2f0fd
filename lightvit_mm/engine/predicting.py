"""Predictions for images on disk, as pictures and JSON: the work of tools/predict.py."""

from __future__ import annotations

import glob
import json
import logging
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from mmengine.runner import load_checkpoint
from rich.progress import track

from lightvit_mm.backbones import PyramidBackbone
from lightvit_mm.data.own import class_heads
from lightvit_mm.engine.exported_model import is_onnx, load_onnx
from lightvit_mm.engine.memory import keep_freed_memory
from lightvit_mm.engine.model_checks import dataset_meta_of, require_whole
from lightvit_mm.errors import UserError
from lightvit_mm.files import whole_file

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


@dataclass
class Predictions:
    """The files that `predict` wrote.

    Attributes:
        json_file: predictions for all images.
        pictures: one drawing per image.
        failed: reasons by name, for images that could not be processed.
    """

    json_file: Path
    pictures: list[Path] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def find_images(source: str) -> tuple[Path, list[Path]]:
    """Find the images that a file name, a folder (searched recursively) or a glob pattern matches.

    Returns:
        Their common folder, and their sorted paths.

    Raises:
        UserError: there are no images.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        found = [file for file in path.rglob('*') if file.suffix.lower() in IMAGE_SUFFIXES]
        root = path
    elif path.is_file():
        found, root = [path], path.parent
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
        found = [file for file in found if file.is_file()]
        root = Path(*_common_parts(found)) if found else path
    if not found:
        raise UserError(
            f'no image in {source}: give a file, a folder with images '
            f'({" ".join(IMAGE_SUFFIXES)}) or a quoted glob pattern'
        )
    return root, sorted(found)


def predict(
    config: Config,
    checkpoint: str,
    source: str,
    out_dir: str,
    score_thr: float = 0.3,
    device: str | None = None,
) -> Predictions:
    """Run a trained model on images.

    Args:
        config: config from `load_config`.
        checkpoint: weights, or a whole model exported by tools/export_onnx.py.
        source: an image, a folder or a glob pattern.
        out_dir: output folder. It gets one picture per image (with the image's path relative to the
            common folder), ``predictions.json`` (one line per image), and for segmentors
            ``labels/``, one PNG of class indices per image.
        score_thr: boxes with a lower score are not drawn; the JSON has all boxes.
        device: torch device; by default a GPU if there is one. An ONNX file runs on the CPU.

    Raises:
        UserError: there are no images, the checkpoint does not fit the config, the device does not
            exist, or the ONNX file cannot be run.
    """
    root, files = find_images(source)
    if is_onnx(checkpoint):
        if device not in (None, 'cpu'):
            raise UserError(f'--device {device}: an ONNX file runs on the cpu; leave it out')
        model: Any = load_onnx(config, checkpoint)
    else:
        model = load_model(config, checkpoint, usable_device(device))
    visualizer = _visualizer(config, model)
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    result = Predictions(out / 'predictions.json')
    # Written one by one, since all boxes of many images would fill the memory.
    with whole_file(result.json_file, keep_part=True) as part, part.open('w') as content:
        content.write(f'{{"checkpoint": {json.dumps(checkpoint)},\n"images": [')
        for file in track(files, description='predicting', disable=len(files) == 1):
            relative = file.relative_to(root)
            reason = 'not an image that OpenCV can decode'
            try:
                image = mmcv.imread(file, channel_order='bgr')
                sample = None if image is None else _infer(model, image)
            except (cv2.error, OSError) as error:
                # For instance, resizing leaves no pixel of a very long image.
                sample, reason = None, f'{type(error).__name__}: {error}'
            if sample is None:
                result.failed[str(file)] = reason.strip()
                continue
            picture = out / relative
            if picture.suffix.lower() not in IMAGE_SUFFIXES:
                picture = picture.with_name(f'{picture.name}.png')
            _draw(visualizer, image, sample, picture, score_thr)
            entry: dict[str, Any] = {
                'file': str(file),
                'width': image.shape[1],
                'height': image.shape[0],
                'picture': str(picture),
            }
            if 'pred_sem_seg' in sample:
                labels = out / 'labels' / relative.with_suffix('.png')
                entry.update(_segments(sample, labels, model.dataset_meta['classes']))
            else:
                entry['detections'] = _detections(sample, model.dataset_meta['classes'])
            content.write((',\n' if result.pictures else '\n') + json.dumps(entry))
            result.pictures.append(picture)
        content.write(f'\n],\n"failed": {json.dumps(result.failed)}}}\n')
    return result


def _common_parts(files: Iterable[Path]) -> tuple[str, ...]:
    parents = [file.parent.parts for file in files]
    common = []
    for parts in zip(*parents, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return tuple(common)


def usable_device(name: str | None) -> str:
    """Check that a device can be used and return its name; None chooses a GPU if there is one.

    Raises:
        UserError: torch cannot use the device.
    """
    name = name or ('cuda:0' if torch.cuda.is_available() else 'cpu')
    try:
        torch.empty(0, device=name)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f'--device {name}: {reason}; cpu always works') from error
    if name == 'cpu':
        keep_freed_memory()
    return name


def load_model(config: Config, checkpoint: str, device: str, backbone_only: bool = False) -> Any:
    """Load the trained detector or segmentor of a config, in eval mode and deploy form.

    Its ``dataset_meta`` has the classes and colours to show: those in the checkpoint if it has
    them, else those of the config's test data.

    Args:
        config: config from `load_config`.
        checkpoint: file or address of its weights.
        device: torch device.
        backbone_only: the rest of the model will not be used, and need not be in the checkpoint.

    Raises:
        UserError: the checkpoint lacks weights, or there is no name for every class.
    """
    if config.default_scope == 'mmdet':
        from mmdet.apis import init_detector as init_model
    else:
        from mmseg.apis import init_model
    with warnings.catch_warnings(record=True):  # of COCO's classes, which are replaced below
        model = init_model(config, device=device)
    require_whole(model, checkpoint, 'backbone.' if backbone_only else '')
    content = load_checkpoint(model, checkpoint, map_location='cpu')
    if not backbone_only:
        model.dataset_meta = _dataset_meta(config, content, checkpoint)
    if isinstance(model.backbone, PyramidBackbone):
        model.backbone.switch_to_deploy()
    return model


def _dataset_meta(config: Config, content: Mapping[str, Any], checkpoint: str) -> dict[str, Any]:
    """Classes and colours to show, of a model that is loaded from a checkpoint."""
    meta = dataset_meta_of(content, checkpoint)
    is_detector = config.default_scope == 'mmdet'
    data: Mapping[str, Any] = {}
    if is_detector or 'classes' not in meta or 'palette' not in meta:
        data = DATASETS.build({**config.test_dataloader.dataset, 'lazy_init': True}).metainfo
    source = checkpoint if 'classes' in meta else f'test_dataloader.dataset of {config.filename}'
    classes = meta.setdefault('classes', tuple(data.get('classes') or ()))
    for name, head in class_heads(config.model):
        if head['num_classes'] > len(classes):
            raise UserError(
                f'{name}.num_classes is {head["num_classes"]}, but {source} names {len(classes)} '
                'classes. Use the config that the checkpoint was trained with; if the checkpoint '
                'names no classes, the config does, in test_dataloader.dataset.metainfo.classes'
            )
        if head['num_classes'] < len(classes):
            print_log(
                f'{source} names {len(classes)} classes, and {name}.num_classes is '
                f'{head["num_classes"]}: the first names are used, which may be wrong',
                logger='current',
                level=logging.WARNING,
            )
    # The order of mmdet's init_detector and of mmseg's init_model.
    first, second = (data, meta) if is_detector else (meta, data)
    for palette in (first.get('palette'), second.get('palette')):
        if is_detector and isinstance(palette, str):  # mmdet knows some by name
            return {**meta, 'palette': palette}
        if colours := _colours(palette, len(classes)):
            return {**meta, 'palette': colours}
    if is_detector:
        return {**meta, 'palette': 'random'}
    random = np.random.default_rng(42).integers(0, 256, (len(classes), 3))
    return {**meta, 'palette': list(map(tuple, random.tolist()))}


def _colours(palette: Any, number: int) -> list[tuple] | None:
    """A palette in the form that mmengine draws; None if it is not one of ``number`` colours."""
    if not isinstance(palette, (list, tuple)) or len(palette) < number:
        return None
    if not all(isinstance(colour, (list, tuple)) and len(colour) == 3 for colour in palette):
        return None
    return [tuple(colour) for colour in palette]


def _visualizer(config: Config, model: Any) -> Any:
    from mmengine.registry import VISUALIZERS

    # No backends: pictures are written by file name, not into the folder of a run.
    visualizer = VISUALIZERS.build({**config.visualizer, 'vis_backends': None})
    visualizer.dataset_meta = model.dataset_meta
    return visualizer


def _infer(model: Any, image: np.ndarray) -> Any:
    if model.cfg.default_scope == 'mmdet':
        from mmdet.apis import inference_detector

        return inference_detector(model, image)
    from mmseg.apis import inference_model

    return inference_model(model, image)


def _draw(visualizer: Any, image: np.ndarray, sample: Any, picture: Path, score_thr: float) -> None:
    picture.parent.mkdir(parents=True, exist_ok=True)
    options = {} if 'pred_sem_seg' in sample else {'pred_score_thr': score_thr}
    visualizer.add_datasample(
        picture.name,
        mmcv.bgr2rgb(image),
        sample.cpu(),
        draw_gt=False,
        out_file=str(picture),
        **options,
    )


def _detections(sample: Any, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    from pycocotools import mask as mask_codec

    instances = sample.pred_instances.cpu()
    masks = instances.masks.numpy() if 'masks' in instances else [None] * len(instances)
    detections = []
    for box, label, score, mask in zip(
        instances.bboxes.tolist(),
        instances.labels.tolist(),
        instances.scores.tolist(),
        masks,
        strict=True,
    ):
        detection = {'class': classes[label], 'label': label, 'score': score, 'box_xyxy': box}
        if mask is not None:
            encoded = mask_codec.encode(np.asfortranarray(mask, dtype=np.uint8))
            detection['mask'] = {'size': encoded['size'], 'counts': encoded['counts'].decode()}
        detections.append(detection)
    return detections


def _segments(sample: Any, labels: Path, classes: tuple[str, ...]) -> dict[str, Any]:
    label_map = sample.pred_sem_seg.data.squeeze(0).cpu().numpy().astype(np.uint8)
    mmcv.imwrite(label_map, str(labels))
    present, pixels = np.unique(label_map, return_counts=True)
    return {
        'label_map': str(labels),
        'segments': [
            {'class': classes[label], 'label': int(label), 'pixels': int(count)}
            for label, count in zip(present, pixels, strict=True)
        ],
    }
