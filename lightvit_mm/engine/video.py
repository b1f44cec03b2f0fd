"""Reading the frames of videos and cameras, and writing a video."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.logging import print_log

from lightvit_mm.errors import MissingFileError, UserError
from lightvit_mm.files import whole_file

__all__ = ['VIDEO_SUFFIXES', 'VideoFrames', 'is_video', 'usable_codec', 'video_file']

VIDEO_SUFFIXES = (
    '.avi', '.flv', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.ts', '.webm', '.wmv',
)  # fmt: skip
# Codec and suffix; the first that this OpenCV has is used.
CODECS = (('mp4v', '.mp4'), ('avc1', '.mp4'), ('MJPG', '.avi'))
RATE = 25.0  # frames per second of a source that gives none
# A source that gives no frame so many times is at its end.
PATIENCE, LIVE_PATIENCE = 100, 5


def is_video(source: str) -> bool:
    """Whether a source is a video file, the address of a stream, or the number of a camera."""
    if Path(source).exists():
        return Path(source).suffix.lower() in VIDEO_SUFFIXES and Path(source).is_file()
    return source.isdecimal() or '://' in source or source.lower().endswith(VIDEO_SUFFIXES)


class VideoFrames:
    """The frames of a video, each with its number from 0; a broken frame is None.

    Args:
        source: a file, the address of a stream (``rtsp://...``), or the number of a camera.

    Attributes:
        name: the source as text.
        stem: a name for outputs, without the address of a stream, which may hold a password.
        live: whether it is a stream or a camera, which has no known end.
        rate: frames per second; `RATE` if the source gives none.
        count: number of frames, as the file states it; None if it is unknown.
        broken: numbers of the frames that could not be decoded so far.

    Raises:
        UserError: OpenCV cannot open the source.
    """

    def __init__(self, source: str | Path | int) -> None:
        self.name = str(source)
        is_camera = self.name.isdecimal() and not Path(self.name).exists()
        self.live = is_camera or '://' in self.name
        if not self.live and not Path(self.name).is_file():
            raise MissingFileError(f'video {self.name} does not exist')
        self._capture = cv2.VideoCapture(int(self.name) if is_camera else self.name)
        if not self._capture.isOpened():
            raise UserError(f'OpenCV cannot open {self._described(is_camera)}')
        stem = f'camera_{self.name}' if is_camera else 'stream'
        self.stem = stem if self.live else Path(self.name).stem
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate <= 1000 else RATE
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if count > 0 and not self.live else None
        self.broken: list[int] = []

    def _described(self, is_camera: bool) -> str:
        if is_camera:
            there = ', '.join(map(str, sorted(Path('/dev').glob('video*')))) or 'none'
            return f'camera {self.name}; cameras of this machine: {there}'
        if self.live:
            return f'the stream {self.name}: is the address right, and is it sending?'
        return f'{self.name}: it is damaged or cut short, or no video'

    def __enter__(self) -> VideoFrames:
        return self

    def __exit__(self, *_: Any) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[tuple[int, np.ndarray | None]]:
        number, failed = 0, 0  # failed: since the last good frame
        while failed < (LIVE_PATIENCE if self.live else PATIENCE):
            good, image = self._capture.read()
            if good:
                # Only a frame that others follow is known to be broken.
                for missed in range(number - failed, number):
                    self.broken.append(missed)
                    yield missed, None
                failed = 0
                yield number, image
            else:
                failed += 1
            number += 1
            if number == self.count:
                break
        # The rest of a file that was cut short.
        for missed in range(number - failed, self.count or 0):
            self.broken.append(missed)
            yield missed, None

    def losses(self) -> str:
        """The frames that could not be decoded, in words; empty if there are none."""
        if not self.broken:
            return ''
        runs = groupby(enumerate(self.broken), key=lambda pair: pair[1] - pair[0])
        numbers = [[number for _, number in run] for _, run in runs]
        ranges = [str(run[0]) if len(run) == 1 else f'{run[0]}-{run[-1]}' for run in numbers]
        of = '' if self.count is None else f' of {self.count}'
        return f'{len(self.broken)}{of} frames could not be decoded: {", ".join(ranges)}'

    def warn(self) -> None:
        """Log a warning that names the broken frames, if there are any."""
        if self.broken:
            text = f'{self.name}: {self.losses()}'
            print_log(text, logger='current', level=logging.WARNING)


def usable_codec(rate: float, size: tuple[int, int]) -> tuple[str, str]:
    """The first of `CODECS` with which OpenCV can write.

    Args:
        rate: frames per second.
        size: width and height in pixels.

    Returns:
        Its four letters, and the suffix of its files.

    Raises:
        UserError: there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        for codec, suffix in CODECS:
            writer = _writer(Path(folder, f'try{suffix}'), codec, rate, size)
            if writer.isOpened():
                writer.release()
                return codec, suffix
    tried = ', '.join(codec for codec, _ in CODECS)
    raise UserError(f'this OpenCV cannot write videos ({tried} failed): pip install opencv-python')


@contextmanager
def video_file(
    path: Path, codec: str, rate: float, size: tuple[int, int]
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends a picture to a video, which is whole when the block ends.

    A picture (H, W, 3), blue, green and red, of another size is resized.

    Args:
        path: the file; see `whole_file`.
        codec: see `usable_codec`.
        rate: frames per second.
        size: width and height in pixels.

    Raises:
        UserError: not all frames were written.
    """
    with whole_file(path, keep_suffix=True) as part:
        part.parent.mkdir(parents=True, exist_ok=True)
        writer = _writer(part, codec, rate, size)
        written = 0

        def write(picture: np.ndarray) -> None:
            nonlocal written
            # OpenCV leaves out pictures of another size.
            fits = (picture.shape[1], picture.shape[0]) == size
            writer.write(picture if fits else cv2.resize(picture, size))
            written += 1

        try:
            yield write
        finally:
            writer.release()
        # OpenCV reports no error of the disk. One more is there if Ctrl-C came before the count.
        there = int(cv2.VideoCapture(str(part)).get(cv2.CAP_PROP_FRAME_COUNT))
        if there < written:
            raise UserError(f'{path}: {max(there, 0)} of {written} frames were written; disk full?')


def _writer(path: Path, codec: str, rate: float, size: tuple[int, int]) -> cv2.VideoWriter:
    return cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, size)
