"""Predictions for images on disk, as pictures and JSON: the work of tools/predict.py."""

from __future__ import annotations

import glob
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from rich.progress import track

from lightvit_mm.data.config import data_paths
from lightvit_mm.data.findings import ERROR
from lightvit_mm.data.images import look_at_image
from lightvit_mm.engine.exported_model import is_exported, load_exported
from lightvit_mm.engine.trained_model import load_model, usable_device
from lightvit_mm.errors import UserError
from lightvit_mm.files import IMAGE_SUFFIXES, check_output_file, check_output_folder, whole_file

PREDICTIONS = 'predictions.json'
HEAD = '{"checkpoint": '


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

    In a folder, files are told apart by `IMAGE_SUFFIXES`; a warning counts those left out.

    Returns:
        Their common folder, and their sorted paths.

    Raises:
        UserError: there are no images.
    """
    path, others = Path(source).expanduser(), []
    if path.is_dir():
        files = [file for file in path.rglob('*') if file.is_file()]
        found = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        others = sorted(set(files) - set(found))
        root = path
    elif path.is_file():
        found, root = [path], path.parent
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
        found = [file for file in found if file.is_file()]
        root = Path(*_common_parts(found)) if found else path
    counts = Counter(file.suffix.lower() or 'no suffix' for file in others).most_common(5)
    left_out = (
        f'{len(others)} files, e.g. {others[0]} '
        f'({", ".join(f"{number} {suffix}" for suffix, number in counts)})'
        if others
        else ''
    )
    if not found:
        raise UserError(
            f'no image in {source}: give a file, a folder with images '
            f'({" ".join(IMAGE_SUFFIXES)}) or a quoted glob pattern'
            + (f'; it has {left_out}' if others else '')
        )
    if others:
        print_log(
            f'{source}: left out {left_out}; of a folder, {" ".join(IMAGE_SUFFIXES)} are read',
            logger='current',
            level=logging.WARNING,
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
        checkpoint: weights, or a whole model exported by tools/export.py.
        source: an image, a folder or a glob pattern.
        out_dir: output folder. It gets one picture per image (with the image's path relative to the
            common folder), ``predictions.json`` (one line per image), and for segmentors
            ``labels/``, one PNG of class indices per image.
        score_thr: boxes with a lower score are not drawn; the JSON has all boxes.
        device: torch device; by default a GPU if there is one. An exported file runs on the CPU.

    Raises:
        UserError: there are no images, the checkpoint does not fit the config, the device does not
            exist, the exported file cannot be run, or ``out_dir`` is a file, cannot be written, or
            holds or lies among other images.
    """
    root, files = find_images(source)
    out = Path(out_dir)
    planned = _plan(files, root, out, labelled=config.default_scope == 'mmseg')
    folder = [source] if Path(source).expanduser().is_dir() else []
    _check_out(out, planned, [*folder, *data_paths(config), checkpoint])
    if is_exported(checkpoint):
        if device not in (None, 'cpu'):
            raise UserError(f'--device {device}: an exported file runs on the cpu; leave it out')
        model: Any = load_exported(config, checkpoint)
    else:
        model = load_model(config, checkpoint, usable_device(device))
    visualizer = _visualizer(config, model)
    result = Predictions(out / PREDICTIONS)
    # Written one by one, since all boxes of many images would fill the memory.
    with whole_file(result.json_file, keep_part=True) as part, part.open('w') as content:
        content.write(f'{HEAD}{json.dumps(checkpoint)},\n"images": [')
        # A folder with this file is known as one of predictions, whatever ends the run.
        content.flush()
        for file in track(files, description='predicting', disable=len(files) == 1):
            picture, *labels = planned[file]
            image, reason = _read_image(file)
            sample = None
            if image is not None:
                try:
                    sample = _infer(model, image)
                except cv2.error as error:
                    # For instance, resizing leaves no pixel of a very long image.
                    reason = f'{type(error).__name__}: {error}'.strip()
            if image is None or sample is None:
                result.failed[str(file)] = reason
                continue
            _draw(visualizer, image, sample, picture, score_thr)
            entry: dict[str, Any] = {
                'file': str(file),
                'width': image.shape[1],
                'height': image.shape[0],
                'picture': str(picture),
            }
            if 'pred_sem_seg' in sample:
                entry.update(_segments(sample, labels[0], model.dataset_meta['classes']))
            else:
                entry['detections'] = _detections(sample, model.dataset_meta['classes'])
            content.write((',\n' if result.pictures else '\n') + json.dumps(entry))
            content.flush()
            result.pictures.append(picture)
        content.write(f'\n],\n"failed": {json.dumps(result.failed)}}}\n')
    return result


def _plan(files: Iterable[Path], root: Path, out: Path, labelled: bool) -> dict[Path, list[Path]]:
    """The picture of each image, and its label map if it gets one."""
    planned = {}
    stems = Counter(file.with_suffix('') for file in files)
    for file in files:
        relative = file.relative_to(root)
        picture = out / relative
        if picture.suffix.lower() not in IMAGE_SUFFIXES:
            picture = picture.with_name(f'{picture.name}.png')
        planned[file] = [picture]
        if labelled:
            # Beside photo.png, photo.jpg gets photo.jpg.png.
            alone = stems[file.with_suffix('')] == 1
            name = relative.with_suffix('.png') if alone else Path(f'{relative}.png')
            planned[file].append(out / 'labels' / name)
    counts = Counter(path for paths in planned.values() for path in paths)
    for file, paths in planned.items():
        for path in paths:
            if counts[path] > 1:
                raise UserError(
                    f'{file}: something else would be written to {path} as well; rename the image, '
                    'or predict on fewer at a time'
                )
    return planned


def _check_out(out: Path, planned: dict[Path, list[Path]], inputs: list[str]) -> None:
    """Refuse a folder in which predictions would replace something else."""
    signs = (PREDICTIONS, f'{PREDICTIONS}.part')
    check_output_folder(out, '--out', signs, inputs)
    check_output_file(out / PREDICTIONS, '--out', rb'\A' + re.escape(HEAD.encode()))
    ours = any((out / sign).exists() for sign in signs)
    sources = {file.resolve() for file in planned}
    for path in (path for paths in planned.values() for path in paths):
        if path.exists() and (not ours or path.resolve() in sources):
            raise UserError(f'--out {out}: {path} would be replaced; give a new or empty folder')


def _read_image(file: Path) -> tuple[np.ndarray | None, str]:
    """The image as BGR or None, and the reason why it cannot be used."""
    loaded: dict[str, np.ndarray] = {}

    def load(_: dict) -> dict | None:
        image = mmcv.imread(file, channel_order='bgr')
        if image is None:
            return None
        loaded['img'] = image
        return loaded

    judgements = look_at_image(str(file), load).judgements
    reasons = [
        f'{kind} {detail}'.strip() for severity, kind, detail in judgements if severity == ERROR
    ]
    return (None, '; '.join(reasons)) if reasons else (loaded['img'], '')


def _common_parts(files: Iterable[Path]) -> tuple[str, ...]:
    parents = [file.parent.parts for file in files]
    common = []
    for parts in zip(*parents, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return tuple(common)


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
