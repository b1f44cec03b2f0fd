"""Predictions for images on disk and videos, as pictures and JSON: the work of tools/predict.py."""

from __future__ import annotations

import glob
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import cv2
from mmengine.config import Config
from mmengine.logging import print_log
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, track

from lightvit_mm.data.config import data_paths
from lightvit_mm.engine.predictor import ImageError, Predictor
from lightvit_mm.engine.results import Result, Segmentation
from lightvit_mm.engine.video import CODECS, VideoFrames, usable_codec, video_file
from lightvit_mm.errors import UserError
from lightvit_mm.files import (
    IMAGE_SUFFIXES,
    check_output_file,
    check_output_folder,
    whole_file,
    write_whole,
)

PREDICTIONS, VIDEO_PREDICTIONS = 'predictions.json', 'predictions.jsonl'
HEAD = '{"checkpoint": '
# A folder with one of these is known as one of predictions, whatever ended the run.
SIGNS = [f'{name}{part}' for name in (PREDICTIONS, VIDEO_PREDICTIONS) for part in ('', '.part')]


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


@dataclass
class VideoPredictions:
    """The files that `predict_video` wrote.

    Attributes:
        json_file: predictions, one frame per line.
        video: the frames with what was found drawn over them.
        codec: of the video, four letters.
        frames: number of frames in it.
        rate: frames that were predicted per second.
        losses: the frames that could not be decoded, in words; empty if there are none.
        stopped: the interruption that ended it early, to be raised after the report.
    """

    json_file: Path
    video: Path
    codec: str
    frames: int
    rate: float
    losses: str
    stopped: BaseException | None = None


def find_images(source: str) -> tuple[Path, list[Path]]:
    """Find the images that a file name, a folder (searched recursively) or a glob pattern matches.

    In a folder, files are told apart by `IMAGE_SUFFIXES`; a warning counts those left out.

    Returns:
        Their common folder, and their sorted paths.

    Raises:
        UserError: there are no images.
    """
    if not source:
        raise UserError('the images have an empty name (an unset variable?): give a file or folder')
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
            common folder), ``predictions.json`` (one line per image; of a classifier, the five most
            likely classes), and for segmentors ``labels/``, one PNG of class indices per image.
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
    mark = rb'\A' + re.escape(HEAD.encode())
    check_output_file(out / PREDICTIONS, '--out', mark)
    predictor = Predictor(config, checkpoint, device, score_thr=0)
    made = Predictions(out / PREDICTIONS)
    # Written one by one, since all boxes of many images would fill the memory.
    with whole_file(made.json_file, keep_part=True) as part, part.open('w') as content:
        content.write(f'{HEAD}{json.dumps(checkpoint)},\n"images": [')
        content.flush()
        for file in track(files, description='predicting', disable=len(files) == 1):
            picture, *labels = planned[file]
            try:
                result = predictor(file)
            except ImageError as error:
                made.failed[str(file)] = error.reason
                continue
            result.above(score_thr).draw(picture)
            entry = {**result.to_dict(), 'picture': str(picture)}
            if isinstance(result, Segmentation):
                write_whole(labels[0], cv2.imencode('.png', result.label_map)[1].tobytes())
                entry['label_map'] = str(labels[0])
            content.write((',\n' if made.pictures else '\n') + json.dumps(entry))
            content.flush()
            made.pictures.append(picture)
        content.write(f'\n],\n"failed": {json.dumps(made.failed)}}}\n')
    return made


def predict_video(
    config: Config,
    checkpoint: str,
    source: str,
    out_dir: str,
    score_thr: float = 0.3,
    device: str | None = None,
) -> VideoPredictions:
    """Run a trained model on a video or a camera, one frame at a time.

    Ctrl-C (or SIGTERM) ends it with whole files of the frames so far.

    Args:
        config: config from `load_config`.
        checkpoint: weights, or a whole model exported by tools/export.py.
        source: a file, the address of a stream, or the number of a camera.
        out_dir: output folder. It gets the video with the drawings, named like the file, ``stream``
            or ``camera_0``, and ``predictions.jsonl`` (``predictions.jsonl.part`` until the end)
            with one line per frame as it is predicted.
        score_thr: see `predict`.
        device: see `predict`.

    Raises:
        UserError: the video cannot be opened or has no frame, or see `predict`.
    """
    out, lines = Path(out_dir), Path(out_dir) / VIDEO_PREDICTIONS
    with VideoFrames(source) as frames, ExitStack() as files:
        stem = out / frames.stem
        planned = {Path(source): [Path(f'{stem}{suffix}') for _, suffix in CODECS]}
        _check_out(out, planned, [*data_paths(config), checkpoint])
        check_output_file(lines, '--out', rb'\A\{"frame": ')
        predictor = Predictor(config, checkpoint, device, score_thr=0)
        part = files.enter_context(whole_file(lines, keep_part=True))
        content = files.enter_context(part.open('w'))
        made, started = None, time.perf_counter()
        try:
            for number, result in _shown(predictor.frames(frames), frames.count):
                entry = {'frame': number, 'failed': 'could not be decoded'}
                if result is not None:
                    picture = result.above(score_thr).draw()
                    if made is None:
                        size = picture.shape[1], picture.shape[0]
                        codec, suffix = usable_codec(frames.rate, size)
                        video = Path(f'{stem}{suffix}')
                        write = files.enter_context(video_file(video, codec, frames.rate, size))
                        made = VideoPredictions(lines, video, codec, 0, 0.0, '')
                    write(picture)
                    made.frames += 1
                    entry = result.to_dict()
                content.write(f'{json.dumps(entry)}\n')
                content.flush()
        except BaseException as error:
            if made is None or isinstance(error, Exception):
                raise
            made.stopped = error
        if made is None:
            raise UserError(f'{source}: no frame could be decoded')
        made.rate = made.frames / (time.perf_counter() - started)
        made.losses = frames.losses()
    return made


def _shown(
    results: Iterator[tuple[int, Result | None]], count: int | None
) -> Iterator[tuple[int, Result | None]]:
    """Show the progress and the frames per second in a terminal."""
    columns = (
        TextColumn('predicting'),
        BarColumn(),
        TextColumn('{task.completed} frames'),
        TextColumn('{task.fields[rate]}'),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task('', total=count, rate='')
        for result in results:
            yield result
            speed = progress.tasks[0].speed
            rate = f'{speed:.1f} a second' if speed else ''
            progress.update(task, advance=1, rate=rate)


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
    check_output_folder(out, '--out', SIGNS, inputs)
    ours = any((out / sign).exists() for sign in SIGNS)
    sources = {file.resolve() for file in planned}
    for path in (path for paths in planned.values() for path in paths):
        if path.exists() and (not ours or path.resolve() in sources):
            raise UserError(f'--out {out}: {path} would be replaced; give a new or empty folder')


def _common_parts(files: Iterable[Path]) -> tuple[str, ...]:
    parents = [file.parent.parts for file in files]
    common = []
    for parts in zip(*parents, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return tuple(common)
