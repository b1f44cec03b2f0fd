"""Trained models for inference: the names of their classes."""

import pytest
import torch
from helpers import small_data
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from lightvit_mm.backbones import EdgeViT
from lightvit_mm.engine.running import test as evaluate
from lightvit_mm.engine.trained_model import deploy_form, load_model
from lightvit_mm.errors import UserError


def segmentor(root, tmp_path):
    config = small_data.segmentor_config(root)
    config.model.backbone.arch = small_data.ARCH
    config.model.neck.update(in_channels=[8] * 4, out_channels=8)
    config.model.decode_head.update(in_channels=[8] * 4, channels=8)
    return config


MAKERS = {'mmdet': small_data.tiny_detector, 'mmseg': segmentor}
NAMES = {'mmdet': small_data.CLASSES, 'mmseg': tuple('abcde')}
OTHERS = tuple('vwxyz')


@pytest.fixture(scope='module')
def weights(small_coco, tmp_path_factory):
    """Random weights of a detector and a segmentor."""
    states = {}
    for scope, make in MAKERS.items():
        config = make(small_coco, tmp_path_factory.mktemp('model'))
        init_default_scope(scope)
        states[scope] = MODELS.build(config.model).state_dict()
    return states


def load(scope, weights, meta, small_coco, tmp_path):
    content = {'state_dict': weights[scope], **({} if meta is None else {'meta': meta})}
    torch.save(content, tmp_path / 'weights.pth')
    return load_model(MAKERS[scope](small_coco, tmp_path), str(tmp_path / 'weights.pth'), 'cpu')


METAS = {
    'no meta': (None, False),
    'empty meta': ({}, False),
    'no dataset_meta': ({'dataset_meta': None}, False),
    'no classes': ({'dataset_meta': {}}, False),
    'named': ({'dataset_meta': {'classes': OTHERS}}, True),
    'old': ({'CLASSES': OTHERS}, True),
    'palette': ({'dataset_meta': {'classes': OTHERS, 'palette': 5}}, True),
    'short palette': ({'dataset_meta': {'classes': OTHERS, 'palette': [(1, 2, 3)]}}, True),
}


@pytest.mark.parametrize('scope', MAKERS)
@pytest.mark.parametrize(('meta', 'named'), METAS.values(), ids=METAS)
def test_names_of_classes(scope, meta, named, weights, small_coco, tmp_path):
    found = load(scope, weights, meta, small_coco, tmp_path).dataset_meta
    assert found['classes'] == (OTHERS if named else NAMES[scope])
    assert found['palette'] == 'random' or len(found['palette']) >= len(found['classes'])


BAD_METAS = {
    'list': ([1], "'meta' is a list; expected a dict"),
    'list of names': ({'dataset_meta': ['a']}, "'dataset_meta' is a list; expected a dict"),
    'number': ({'dataset_meta': {'classes': 4}}, 'its classes are 4; expected a list of names'),
    'numbers': (
        {'dataset_meta': {'classes': (1, 2)}},
        r'its classes are \(1, 2\); expected a list',
    ),
    'tensor': ({'dataset_meta': {'classes': torch.ones(4)}}, 'its classes are tensor'),
    'old number': ({'CLASSES': 4}, 'its classes are 4'),
    'too few': ({'dataset_meta': {'classes': ('a',)}}, r'weights\.pth names 1 classes'),
}


@pytest.mark.parametrize('scope', MAKERS)
@pytest.mark.parametrize(('meta', 'said'), BAD_METAS.values(), ids=BAD_METAS)
def test_names_that_are_none(scope, meta, said, weights, small_coco, tmp_path):
    with pytest.raises(UserError, match=said) as raised:
        load(scope, weights, meta, small_coco, tmp_path)
    assert 'weights.pth' in str(raised.value)


def test_no_names_anywhere(weights, small_coco, tmp_path):
    torch.save({'state_dict': weights['mmdet']}, tmp_path / 'weights.pth')
    config = small_data.tiny_detector(small_coco, tmp_path)
    config.test_dataloader.dataset.metainfo = {'classes': ('one',)}
    said = r'bbox_head\.num_classes is 4, but test_dataloader\.dataset of .* names 1 classes'
    with pytest.raises(UserError, match=said):
        load_model(config, str(tmp_path / 'weights.pth'), 'cpu')


def test_evaluation_of_a_checkpoint_with_bad_names(weights, small_coco, tmp_path, quick_runner):
    content = {'state_dict': weights['mmdet'], 'meta': {'dataset_meta': ['a']}}
    torch.save(content, tmp_path / 'weights.pth')
    with pytest.raises(UserError, match="'dataset_meta' is a list"):
        evaluate(small_data.tiny_detector(small_coco, tmp_path), str(tmp_path / 'weights.pth'))


def test_too_many_names(weights, small_coco, tmp_path, mm_log):
    load('mmdet', weights, {'dataset_meta': {'classes': OTHERS}}, small_coco, tmp_path)
    (said,) = [line for line in mm_log if 'may be wrong' in line]
    assert 'weights.pth names 5 classes, and model.bbox_head.num_classes is 4' in said


@pytest.mark.parametrize('scope', MAKERS)
def test_deploy_form_works_in_channels_last(scope, small_coco, tmp_path):
    config = MAKERS[scope](small_coco, tmp_path)
    init_default_scope(scope)
    torch.manual_seed(0)
    model = MODELS.build(config.model).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = maps(model(image))
        after = maps(deploy_form(model)(image))
        after_backbone = model.backbone(image)
    for map_ in (*after_backbone, *after):
        assert map_.is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)


def maps(outputs):
    """Every tensor of nested tuples."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [map_ for output in outputs for map_ in maps(output)]


class Regions(nn.Module):
    """A backbone and mmdet's RoIAlign on its levels."""

    def __init__(self):
        super().__init__()
        self.backbone = EdgeViT(small_data.ARCH)
        self.extractor = MODELS.build(
            {
                'type': 'mmdet.SingleRoIExtractor',
                'roi_layer': {'type': 'RoIAlign', 'output_size': 7, 'sampling_ratio': 0},
                'out_channels': 8,
                'featmap_strides': [4, 8, 16, 32],
            }
        )

    def forward(self, x):
        boxes = torch.tensor([[0.0, 8, 8, 40, 30], [0, 0, 0, 90, 60]])
        return self.extractor(self.backbone(x), boxes)


def test_deploy_form_with_regions_keeps_the_layout():
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = Regions().eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = model(image)
        torch.testing.assert_close(deploy_form(model)(image), before, atol=1e-5, rtol=1e-5)
