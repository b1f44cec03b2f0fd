"""ExecuTorch files; the tests run by ``tools/test.sh --runtimes``, which installs it."""

import json

import pytest
from helpers.detectors import random_detector, save_detector
from helpers.repository import REPOSITORY

from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.predicting import predict
from lightvit_mm.export.exporting import export
from lightvit_mm.runtimes.session import open_file

pytestmark = pytest.mark.runtimes
RETINANET = str(REPOSITORY / 'configs/retinanet_repvit_m0_6_shapes.py')


def test_a_detector(shapes, tmp_path):
    image = str(sorted((shapes / 'images/val').glob('*.png'))[0])
    detector = random_detector(load_config(RETINANET))
    checkpoint = save_detector(detector, tmp_path / 'epoch_1.pth')
    out = tmp_path / 'model.pte'
    made = export(load_config(RETINANET), checkpoint, str(out), (128, 128), images=[image])
    assert made.outputs == ['boxes', 'scores', 'labels']
    assert made.deviation < 1e-4
    assert made.checked[1].detections > 20
    session = open_file(out)
    assert session.size == (128, 128)
    assert (session.metadata['task'], session.metadata['precision']) == ('detection', 'fp32')
    found = []
    for weights in (checkpoint, str(out)):
        done = predict(load_config(RETINANET), weights, image, str(tmp_path / 'out'))
        (entry,) = json.loads(done.json_file.read_text())['images']
        found.append(entry['detections'])
    assert len(found[0]) == len(found[1]) > 20
    for ours, theirs in zip(*found, strict=True):
        assert ours['class'] == theirs['class']
        assert ours['score'] == pytest.approx(theirs['score'], abs=1e-4)
        assert ours['box_xyxy'] == pytest.approx(theirs['box_xyxy'], abs=0.06)
