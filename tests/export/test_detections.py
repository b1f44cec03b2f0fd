"""The detections of the exportable form equal those of mmdet."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers.detectors import SMALL_MASK_RCNN, predict, random_detector
from helpers.repository import REPOSITORY

pytest.importorskip('mmdet')

from lightvit_mm.engine.configs import load_config
from lightvit_mm.errors import UserError
from lightvit_mm.export.compare import Limits, compare_detections
from lightvit_mm.export.detections import check_size, detections_of
from lightvit_mm.export.raw import raw_detections_of
from lightvit_mm.runtimes.detections import choose

RETINANET = 'retinanet_edgevit_xxs_shapes.py'
RTMDET = 'rtmdet_mobilevit_xxs_coco.py'
MASK_RCNN = 'mask_rcnn_edgevit_xxs_coco.py'


def config_of(name, options=None):
    return load_config(str(REPOSITORY / 'configs' / name), options)


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        (RETINANET, {}),
        # Fewer candidates than max_per_img.
        (RETINANET, {'model.test_cfg.nms_pre': 50, 'model.test_cfg.score_thr': 0.5}),
        (RETINANET, {'model.test_cfg.nms.class_agnostic': True}),
        (MASK_RCNN, SMALL_MASK_RCNN),
        (MASK_RCNN, {**SMALL_MASK_RCNN, 'model.roi_head.bbox_head.reg_class_agnostic': True}),
        ('ssdlite_mobilevit_xxs_coco.py', {}),
        ('light_edgevit_xxs_coco.py', {}),
        (RTMDET, {}),
        (RTMDET, {'model.test_cfg.nms_pre': 100, 'model.test_cfg.score_thr': 0.5}),
    ],
    ids=[
        'retinanet',
        'few',
        'agnostic',
        'mask_rcnn',
        'one_box',
        'ssdlite',
        'light',
        'rtmdet',
        'few_rtmdet',
    ],
)
def test_detects_what_mmdet_detects(name, options):
    config = config_of(name, options)
    model = random_detector(config)
    x = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        expected = predict(model, x)
        made = dict(zip((form := detections_of(model)).outputs, form(x), strict=True))
        made = {key: value.numpy() for key, value in made.items()}
        # The graphs that end before NMS.
        raw = None if name == MASK_RCNN else raw_detections_of(model, (96, 160))
        chosen = raw and choose(*(value.numpy() for value in raw(x)), raw.choice)
    cfg = config.model.test_cfg.get('rcnn', config.model.test_cfg)
    limits = Limits(cfg.score_thr, cfg.nms.iou_threshold, cfg.max_per_img)
    assert len(expected) > 20
    theirs = {key: expected[key].numpy() for key in ('scores', 'labels')}
    theirs['boxes'] = expected.bboxes.numpy()
    for ours in (made, chosen) if raw else (made,):
        deviation, pairs = compare_detections(theirs, ours, 160, limits)
        assert deviation < 1e-5
        assert pairs == len(expected) == len(ours['boxes'])
        assert (np.diff(ours['scores']) <= 0).all()
    if 'masks' in made:
        assert made['masks'].shape == (len(made['boxes']), 28, 28)


def test_nothing_detected_is_empty():
    model = random_detector(config_of(MASK_RCNN, SMALL_MASK_RCNN))
    model.roi_head.test_cfg.score_thr = 1.0
    with torch.no_grad():
        boxes, scores, labels, masks = detections_of(model)(torch.randn(1, 3, 64, 64))
    assert boxes.shape == (0, 4)
    assert scores.shape == labels.shape == (0,)
    assert masks.shape == (0, 28, 28)


def test_other_detectors_are_refused():
    config = config_of(RETINANET)
    config.model.bbox_head = {'type': 'FCOSHead', 'num_classes': 4, 'in_channels': 64}
    config.model.type = 'FCOS'
    with pytest.raises(UserError, match=r'FCOSHead cannot be exported yet.*--backbone-only'):
        detections_of(random_model(config))
    config = config_of(RETINANET, {'model.test_cfg.nms.type': 'soft_nms'})
    with pytest.raises(UserError, match='nms of type soft_nms'):
        detections_of(random_model(config))


def test_two_stages_cannot_end_before_nms():
    model = random_model(config_of(MASK_RCNN, SMALL_MASK_RCNN))
    with pytest.raises(UserError, match=r'MaskRCNN chooses .*export it to \.onnx or \.xml'):
        raw_detections_of(model, (64, 64))


def test_rtmdet_ins_is_refused():
    model = random_model(config_of('rtmdet_ins_edgevit_xxs_coco.py'))
    words = r'RTMDet-Ins cannot be exported .*mask_rcnn_\*.* to \.onnx .*rtmdet_\*'
    for form in (detections_of, partial(raw_detections_of, size=(64, 64))):
        with pytest.raises(UserError, match=words):
            form(model)


def test_sizes_of_rtmdet():
    finest = random_model(config_of('rtmdet_efficientvit_m0_coco.py'))
    check_size(finest, (64, 320))
    with pytest.raises(
        UserError, match=r'--size 64 352: the neck of RTMDet doubles .*multiples of 64'
    ):
        check_size(finest, (64, 352))
    check_size(random_model(config_of(RETINANET)), (50, 70))


def random_model(config):
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    return MODELS.build(config.model)
