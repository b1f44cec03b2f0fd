"""Videos: frames that are read and written, broken ones among them, and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from helpers import small_data
from helpers.repository import REPOSITORY

import lightvit_mm
from lightvit_mm.engine import video
from lightvit_mm.engine.predicting import predict_video
from lightvit_mm.engine.video import VideoFrames, is_video
from lightvit_mm.errors import UserError

WIDTH, HEIGHT = small_data.SIZE
RATE = 10


def write_clip(file, count=12, codec='MJPG'):
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*codec), RATE, (WIDTH, HEIGHT))
    for number in range(count):
        writer.write(np.full((HEIGHT, WIDTH, 3), 20 * (number % 12), np.uint8))
    writer.release()
    return file


def place_of(frame, content):
    """Where the picture of a frame begins in an .avi file."""
    place = content.index(b'movi')
    for _ in range(frame + 1):
        place = content.index(b'00dc', place + 1)
    return place + 8


def spoil(file, frame):
    content = bytearray(file.read_bytes())
    start, end = place_of(frame, content), place_of(frame + 1, content) - 8
    content[start:end] = bytes(end - start)
    file.write_bytes(content)


def brightness(file):
    with VideoFrames(file) as frames:
        return [None if image is None else round(image.mean()) for _, image in frames]


@pytest.fixture(scope='module')
def detector(small_coco, tmp_path_factory):
    folder = tmp_path_factory.mktemp('detector')
    config = small_data.tiny_detector(small_coco, folder)
    return config, small_data.save_checkpoint(config, folder / 'epoch_1.pth')


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / 'clip.avi')


def test_a_video_becomes_a_video(detector, clip, tmp_path):
    # The detector is not trained; nothing is drawn above that score.
    made = predict_video(*detector, str(clip), str(tmp_path / 'out'), score_thr=1.1)
    assert (made.frames, made.losses, made.stopped) == (12, '', None)
    assert made.video == tmp_path / 'out/clip.mp4'
    assert brightness(made.video) == pytest.approx([20 * number for number in range(12)], abs=4)
    with VideoFrames(made.video) as frames:
        assert frames.rate == RATE
    lines = [json.loads(line) for line in made.json_file.read_text().splitlines()]
    assert [line['frame'] for line in lines] == list(range(12))
    assert {(line['width'], line['height']) for line in lines} == {(WIDTH, HEIGHT)}
    # The same results from Python, one frame at a time.
    results = lightvit_mm.Predictor(*detector, score_thr=0).video(clip)
    first = next(results)
    assert (first.path, first.frame) == (str(clip), 0)
    assert json.loads(first.to_json()) == lines[0]
    assert [result.frame for result in results] == list(range(1, 12))
    # A second run replaces the first.
    again = predict_video(*detector, str(clip), str(tmp_path / 'out'), score_thr=0)
    assert sorted(file.name for file in again.video.parent.iterdir()) == [
        'clip.mp4',
        'predictions.jsonl',
    ]
    assert brightness(again.video)[0] > 20  # the boxes


def test_broken_frames_are_counted_and_named(detector, clip, tmp_path, mm_log):
    for frame in (3, 4, 8):
        spoil(clip, frame)
    made = predict_video(*detector, str(clip), str(tmp_path / 'out'))
    assert made.frames == 9
    assert made.losses == '3 of 12 frames could not be decoded: 3-4, 8'
    lines = [json.loads(line) for line in made.json_file.read_text().splitlines()]
    assert [line['frame'] for line in lines if 'failed' in line] == [3, 4, 8]
    frames = [result.frame for result in lightvit_mm.Predictor(*detector).video(str(clip))]
    assert frames == [0, 1, 2, 5, 6, 7, 9, 10, 11]
    assert mm_log[-1] == f'{clip}: {made.losses}'


def test_a_file_that_was_cut_short(clip):
    content = clip.read_bytes()
    clip.write_bytes(content[: place_of(5, content)])
    with VideoFrames(clip) as frames:
        assert [number for number, image in frames if image is not None] == [0, 1, 2, 3, 4]
        assert frames.losses() == '7 of 12 frames could not be decoded: 5-11'


class Camera(BaseHTTPRequestHandler):
    """Sends twelve pictures, one after the other, and ends."""

    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=picture')
        self.end_headers()
        for number in range(12):
            grey = np.full((HEIGHT, WIDTH, 3), 20 * number, np.uint8)
            content = cv2.imencode('.jpg', grey)[1].tobytes()
            head = f'--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}'
            self.wfile.write(head.encode() + b'\r\n\r\n' + content + b'\r\n')

    def log_message(self, *_):
        pass


def test_a_stream(detector, tmp_path):
    with ThreadingHTTPServer(('127.0.0.1', 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://name:password@127.0.0.1:{server.server_port}/camera.mjpg'
        made = predict_video(*detector, address, str(tmp_path / 'out'), score_thr=1.1)
        server.shutdown()
    assert (made.frames, made.losses) == (12, '')
    assert made.video == tmp_path / 'out/stream.mp4'
    assert brightness(made.video) == pytest.approx([20 * number for number in range(12)], abs=4)
    assert 'password' not in made.json_file.read_text()


def test_what_is_a_video(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('clip.MP4', 'photo.jpg', '7'):
        (tmp_path / name).touch()
    (tmp_path / 'folder.avi').mkdir()
    assert [is_video(name) for name in ('clip.MP4', 'absent.mkv', '0', 'rtsp://host/1')] == [
        True
    ] * 4
    assert not any(map(is_video, ('photo.jpg', 'folder.avi', '7', 'photos', '*.png')))


def test_what_cannot_be_opened_or_written(detector, clip, tmp_path):
    text = tmp_path / 'text.mp4'
    text.write_text('no video')
    for source, out, said in (
        (str(text), 'out', 'it is damaged or cut short, or no video'),
        (str(tmp_path / 'absent.mp4'), 'out', 'does not exist'),
        ('99', 'out', 'cannot open camera 99; cameras of this machine: '),
        (str(clip), str(clip), 'is a file: give a folder'),
    ):
        with pytest.raises(UserError, match=said):
            predict_video(*detector, source, str(tmp_path / out))
    beside = write_clip(tmp_path / 'clip.mp4', codec='mp4v')
    before = beside.read_bytes()
    with pytest.raises(UserError, match=r'clip\.mp4 would be replaced'):
        predict_video(*detector, str(beside), str(tmp_path))
    assert beside.read_bytes() == before
    assert not (tmp_path / 'out').exists()


def test_codecs(tmp_path, monkeypatch):
    """The first that works is taken; frames that are lost are an error."""
    monkeypatch.setattr(video, 'CODECS', (('none', '.mp4'), ('MJPG', '.avi')))
    size = (WIDTH + 1, HEIGHT + 1)  # odd
    codec, suffix = video.usable_codec(25, size)
    assert (codec, suffix) == ('MJPG', '.avi')
    file = tmp_path / 'new/made.avi'
    with video.video_file(file, codec, 25, size) as write:
        write(np.zeros((HEIGHT + 1, WIDTH + 1, 3), np.uint8))
        write(np.zeros((9, 9, 3), np.uint8))
        assert not file.exists()
    assert brightness(file) == [0, 0]
    monkeypatch.setattr(video, 'CODECS', (('none', '.mp4'),))
    with pytest.raises(UserError, match=r'cannot write videos \(none failed\)'):
        video.usable_codec(25, size)
    with (
        pytest.raises(UserError, match='0 of 1 frames were written'),
        video.video_file(tmp_path / 'lost.mp4', 'none', 25, size) as write,
    ):
        (tmp_path / 'lost.part.mp4').touch()
        write(np.zeros((9, 9, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ['new']


def test_ctrl_c_keeps_the_frames_so_far(detector, tmp_path):
    config, checkpoint = detector
    config.dump(str(tmp_path / 'tiny.py'))
    clip = write_clip(tmp_path / 'clip.avi', 4000)
    out = tmp_path / 'out'
    running = subprocess.Popen(
        [
            *(sys.executable, REPOSITORY / 'tools/predict.py', tmp_path / 'tiny.py', checkpoint),
            *(clip, '--out', out, '--score-thr', '1.1'),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Shells turn SIGINT off for what runs in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    lines = out / 'predictions.jsonl.part'
    while running.poll() is None and not (lines.exists() and lines.read_text().count('\n') > 5):
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGINT)
    said, errors = running.communicate()
    assert running.returncode == 130, errors
    kept = brightness(out / 'clip.mp4')
    assert 5 < len(kept) < 4000
    assert f'{len(kept)} frames in {out}/clip.mp4 (codec mp4v)' in said
    frames = [json.loads(line)['frame'] for line in (out / 'predictions.jsonl').open()]
    assert frames == list(range(len(kept)))
    assert kept[:2] == pytest.approx([0, 20], abs=4)
