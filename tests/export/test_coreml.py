"""Core ML packages; the tests run by ``tools/test.sh --runtimes``, which installs the converter.

No package runs here: they are read again.
"""

import json

import numpy as np
import pytest
import torch
from helpers.detectors import CLASSES, random_detector, save_detector
from helpers.repository import REPOSITORY

from lightvit_mm.backbones.create import create_backbone
from lightvit_mm.engine.configs import load_config
from lightvit_mm.errors import UserError
from lightvit_mm.export.exporting import export, export_subject
from lightvit_mm.export.subject import Subject

pytestmark = pytest.mark.runtimes
LIGHT = str(REPOSITORY / 'configs/light_edgevit_xxs_shapes.py')


def read(package):
    import coremltools

    return coremltools.models.MLModel(str(package), skip_model_load=True)


def test_a_detector_ends_with_nms(shapes, tmp_path):
    image = str(sorted((shapes / 'images/val').glob('*.png'))[0])
    torch.manual_seed(0)
    checkpoint = save_detector(random_detector(load_config(LIGHT)), tmp_path / 'epoch_1.pth')
    out = tmp_path / 'model.mlpackage'
    config = load_config(LIGHT)
    for precision in ('fp32', 'fp16'):
        made = export(config, checkpoint, str(out), (96, 128), images=[image], precision=precision)
        assert made.deviation < 1e-4
        assert made.checked[1].detections > 20
        model = read(out)
        kept = json.loads(model.user_defined_metadata['lightvit_mm'])
        assert (kept['precision'], kept['classes']) == (precision, list(CLASSES))
    described = model.get_spec().description
    picture, *thresholds = described.input
    kind = picture.type.imageType
    assert (picture.name, kind.width, kind.height) == ('image', 128, 96)
    assert kind.ColorSpace.Name(kind.colorSpace) == 'BGR'
    assert {given.name for given in thresholds} == {'iouThreshold', 'confidenceThreshold'}
    assert all(given.type.isOptional for given in thresholds)
    assert [output.name for output in described.output] == ['confidence', 'coordinates']
    network, nms = model.get_spec().pipeline.models
    priors = sum(kept['choice']['levels'])
    shapes_out = [list(made.type.multiArrayType.shape) for made in network.description.output]
    assert shapes_out == [[priors, 4], [priors, 4]]
    stage = nms.nonMaximumSuppression
    assert list(stage.stringClassLabels.vector) == list(CLASSES)
    assert stage.pickTop.perClass
    cfg = config.model.test_cfg
    assert (stage.iouThreshold, stage.confidenceThreshold) == (cfg.nms.iou_threshold, cfg.score_thr)


def test_weights_are_those_of_the_backbone(tmp_path):
    import coremltools

    backbone = create_backbone('repvit_m0_6', pretrained=False).eval().switch_to_deploy()
    names = [f'level{i}' for i in range(4)]
    done = export_subject(Subject(backbone, names, (64, 96)), tmp_path / 'pyramid.mlpackage')
    model = read(done.file)
    outputs = model.get_spec().description.output
    assert {output.name for output in outputs} == set(names)
    for name, level in zip(names, backbone(torch.zeros(1, 3, 64, 96)), strict=True):
        (output,) = (output for output in outputs if output.name == name)
        assert tuple(output.type.multiArrayType.shape) == tuple(level.shape)
    kept = coremltools.optimize.coreml.get_weights_metadata(model, weight_threshold=512)
    values = {np.asarray(entry.val).tobytes() for entry in kept.values()}
    convolutions = [x.detach().numpy() for x in backbone.parameters() if x.numel() >= 512]
    assert len(convolutions) > 50
    assert all(weight.tobytes() in values for weight in convolutions)


def test_other_folders_are_kept(tmp_path):
    out = tmp_path / 'photos.mlpackage'
    out.mkdir()
    (out / 'photo.txt').write_text('mine')
    with pytest.raises(UserError, match='is a folder that this tool did not write'):
        export(load_config(LIGHT), 'epoch_1.pth', str(out), (96, 128), images=['photo.png'])
    assert (out / 'photo.txt').read_text() == 'mine'
