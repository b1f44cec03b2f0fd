"""`lightvit_mm.Predictor` and its results."""

import copy
import json
import sys

import cv2
import mmcv
import numpy as np
import pytest
import torch
from helpers import small_data
from helpers.detectors import SMALL_MASK_RCNN, random_detector
from helpers.repository import REPOSITORY
from pycocotools import mask as mask_codec

import lightvit_mm
from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.predictor import ImageError
from lightvit_mm.engine.results import Detections, Segmentation
from lightvit_mm.errors import UserError

CLASSES = small_data.CLASSES


@pytest.fixture(scope='module')
def detector(small_coco, tmp_path_factory):
    """The config and a checkpoint of a Mask R-CNN that finds something."""
    options = {**SMALL_MASK_RCNN, 'test_dataloader.dataset.pipeline.1.scale': (128, 128)}
    config = load_config(str(REPOSITORY / 'configs/mask_rcnn_edgevit_xxs_coco.py'), options)
    config.model.backbone.arch = small_data.ARCH
    config.model.neck.in_channels = [8] * 4
    file = tmp_path_factory.mktemp('detector') / 'epoch_1.pth'
    state = random_detector(copy.deepcopy(config)).state_dict()
    meta = {'dataset_meta': {'classes': CLASSES, 'palette': [(0, 0, 255)] * 4}}
    torch.save({'state_dict': state, 'meta': meta}, file)
    return config, file


@pytest.fixture(scope='module')
def predictor(detector):
    return lightvit_mm.Predictor(*detector, score_thr=0.0)


@pytest.fixture(scope='module')
def photos(small_coco):
    return sorted((small_coco / 'images/val').iterdir())


def test_detections_are_those_of_mmdet(detector, predictor, photos):
    from mmdet.apis import inference_detector, init_detector

    config, file = detector
    expected = inference_detector(init_detector(config, str(file), device='cpu'), str(photos[0]))
    expected = expected.pred_instances.numpy()
    found = predictor(photos[0])
    assert len(found) == len(expected.labels) > 10
    # Folding moves numbers by rounding.
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, expected.bboxes, atol=1e-2)
    assert found.labels.tolist() == expected.labels.tolist()
    assert (found.masks == expected.masks).mean() > 0.999
    width, height = small_data.SIZE
    assert found.masks.shape == (len(found), height, width)
    assert found.masks.dtype == bool
    assert found.names == [CLASSES[label] for label in found.labels]


def test_every_way_to_give_images(predictor, photos, monkeypatch):
    path, array = photos[0], mmcv.imread(photos[0])
    first = predictor(path)
    assert (first.path, first.frame) == (str(path), None)
    assert (first.image == array).all()
    assert predictor(array).path is None
    asked = []

    def images():
        for image in (str(path), array):
            asked.append(image)
            yield image

    lazy = predictor(images())
    assert not asked
    next(lazy)
    assert len(asked) == 1  # one image is in memory at a time
    for results in (predictor([path, array]), [first, *lazy], predictor((path,))):
        assert all((result.boxes == first.boxes).all() for result in results)
    threshold = float(np.median(first.scores))
    above = first.above(threshold)
    assert 0 < len(above) < len(first)
    assert above.scores.min() >= threshold
    assert len(above.masks) == len(above.boxes) == len(above.labels) == len(above)
    monkeypatch.setattr(predictor, 'score_thr', threshold)
    assert predictor(path).scores.tolist() == above.scores.tolist()


@pytest.mark.parametrize(
    ('image', 'said'),
    [
        (np.zeros((8, 8), np.uint8), r'an array \(8, 8\) of type uint8: expected a path, an array'),
        (np.zeros((8, 8, 3)), r'of type float64: expected .* array \(H, W, 3\) of type uint8'),
        (np.zeros((0, 8, 3), np.uint8), r'\(0, 8, 3\)'),
        ('absent.jpg', 'absent.jpg: image file missing'),
        (['absent.jpg'], 'absent.jpg: image file missing'),
        (3, 'int 3: expected a path, an array'),
        (torch.zeros(3, 8, 8), r'Tensor tensor\(.*expected a path, an array'),
    ],
)
def test_what_is_no_image(predictor, image, said):
    with pytest.raises(ImageError, match=said):
        predictor(image)


def test_detections_as_json_and_for_supervision(predictor, photos, monkeypatch):
    found = predictor(photos[0]).above(0.5)
    content = json.loads(found.to_json())
    assert content['file'] == str(photos[0])
    assert (content['width'], content['height']) == small_data.SIZE
    assert len(content['detections']) == len(found)
    for number, detection in enumerate(content['detections']):
        assert detection['class'] == CLASSES[detection['label']] == found.names[number]
        assert detection['box_xyxy'] == pytest.approx(found.boxes[number])
        assert (mask_codec.decode(detection['mask']) == found.masks[number]).all()
    monkeypatch.setitem(sys.modules, 'supervision', None)
    with pytest.raises(UserError, match='pip install supervision'):
        found.to_supervision()


def test_supervision(predictor, photos):
    supervision = pytest.importorskip('supervision', reason='not installed')
    found = predictor(photos[0])
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert len(theirs) == len(found)
    assert (theirs.xyxy == found.boxes).all()
    assert (theirs.mask == found.masks).all()
    assert theirs[theirs.class_id == found.labels[0]]['class_name'][0] == found.names[0]


def drawn(**found) -> Detections:
    image = np.full((60, 80, 3), 128, np.uint8)
    return Detections(image=image, classes=('a',), colours=[(255, 0, 0)], path='p.png', **found)


def test_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = drawn(
        boxes=np.array([[20.0, 30, 60, 50]]), scores=np.array([0.75]), labels=np.array([0])
    )
    picture = found.draw('out/drawn.png')
    assert picture.shape == found.image.shape
    assert (picture[50, 40] == (0, 0, 255)).all()  # blue, green, red
    assert (picture[40, 40] == 128).all()
    assert (found.image == 128).all()
    assert (cv2.imread('out/drawn.png') == picture).all()
    masks = np.zeros((1, 60, 80), bool)
    masks[0, 35:45, 30:50] = True
    assert drawn(**vars_of(found), masks=masks).draw()[40, 40, 2] > 150
    assert repr(found) == 'Detections(p.png, 80 x 60: 1 a)'
    with pytest.raises(UserError, match='is the image itself'):
        found.draw('out/../p.png')
    with pytest.raises(UserError, match=r'drawn\.gif: a picture ends in \.bmp'):
        found.draw('drawn.gif')
    nothing = found.above(0.8)
    assert (nothing.draw() == 128).all()
    assert json.loads(nothing.to_json())['detections'] == []


def vars_of(found: Detections) -> dict:
    return {'boxes': found.boxes, 'scores': found.scores, 'labels': found.labels}


def test_a_segmentor(small_coco, tmp_path, photos):
    from mmseg.apis import inference_model, init_model

    config = small_data.segmentor_config(small_coco)
    config.model.backbone.arch = small_data.ARCH
    config.model.neck.in_channels = [8] * 4
    file = small_data.save_checkpoint(config, tmp_path / 'iter_1.pth')
    scale = (64, 48)
    config.test_pipeline[1].scale = scale
    predictor = lightvit_mm.Predictor(config, file)
    # Another library's default scope does not disturb it.
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    found = predictor(photos[0])
    init_default_scope('mmseg')
    expected = inference_model(init_model(config, file, device='cpu'), str(photos[0]))
    expected = expected.pred_sem_seg.data[0].numpy()
    assert isinstance(found, Segmentation)
    assert found.label_map.shape == small_data.SIZE[::-1]
    assert (found.label_map == expected).mean() > 0.999
    assert found.names == [predictor.classes[label] for label in np.unique(found.label_map)]
    segments = json.loads(found.to_json())['segments']
    assert {s['label']: s['pixels'] for s in segments} == {
        int(label): int((found.label_map == label).sum()) for label in found.labels
    }
    assert found.draw().shape == found.image.shape
    assert found.above(0.9) is found
