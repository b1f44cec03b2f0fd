"""The model zoo agrees with the configs."""

import re

import pytest
import yaml
from helpers.repository import REPOSITORY

from lightvit_mm.checkpoints.weights import WEIGHTS
from lightvit_mm.reproduction.published import read_published
from lightvit_mm.reproduction.zoo import (
    as_page,
    measure,
    split_name,
    weights_page,
    zoo_configs,
)

CONFIGS = REPOSITORY / 'configs'
METAFILE = yaml.safe_load((CONFIGS / 'metafile.yml').read_text())
ROWS = read_published(CONFIGS / 'published.yml')


def test_the_metafile_lists_every_config():
    listed = {model['Config'] for model in METAFILE['Models']}
    assert listed == {f'configs/{file.name}' for file in zoo_configs(CONFIGS)}
    collections = {collection['Name'] for collection in METAFILE['Collections']}
    assert {model['In Collection'] for model in METAFILE['Models']} == collections
    index = yaml.safe_load((REPOSITORY / 'model-index.yml').read_text())
    assert index['Import'] == ['configs/metafile.yml']


# The parameters of all others are compared in tests/test_configs.py.
@pytest.mark.parametrize(
    'name',
    [
        'retinanet_edgevit_xxs_coco',
        'mask_rcnn_repvit_m0_6_coco',
        'semantic_fpn_efficientvit_m0_ade20k',
        'upernet_shuffle_t2t_vit_7_ade20k',
    ],
)
def test_the_metafile_has_what_is_measured(name):
    entry = next(model for model in METAFILE['Models'] if model['Name'] == name)
    assert measure(CONFIGS / f'{name}.py') == entry


def test_the_page_is_up_to_date():
    page = as_page(METAFILE, ROWS)
    assert (REPOSITORY / 'docs' / 'model_zoo.md').read_text() == page
    for row in ROWS:
        line = next(line for line in page.splitlines() if f'[{row.config}]' in line)
        for value in row.published.values():
            assert str(value) in line
        assert ('recalled' in line) is (row.confidence == 'recalled')


def test_the_page_of_weights_is_up_to_date():
    page = weights_page()
    assert (REPOSITORY / 'docs' / 'weights.md').read_text() == page
    for weights in WEIGHTS:
        (line,) = [
            line for line in page.splitlines() if f'{weights.address}' in re.split(r'[()`]', line)
        ]
        assert weights.name in line
        assert weights.release.licence in line
        assert weights.layout in line
        assert ('third party' in line) is weights.release.third_party
    assert page.count('None were published.') == 3


def test_what_somebody_reproduced_is_shown_beside_what_was_published():
    models = [dict(model) for model in METAFILE['Models']]
    name = 'retinanet_efficientvit_m4_coco'
    for model in models:
        if model['Name'] == name:
            model['Results'] = [{'Task': 'Object Detection', 'Metrics': {'bbox_mAP': 32.5}}]
    page = as_page({**METAFILE, 'Models': models}, ROWS)
    line = next(line for line in page.splitlines() if f'[{name}]' in line)
    assert 'bbox_mAP 32.7' in line
    assert 'bbox_mAP 32.5' in line


def test_names_of_configs():
    assert split_name('semantic_fpn_shuffle_t2t_vit_7_ade20k') == (
        'semantic_fpn',
        'shuffle_t2t_vit',
        '7',
        'ade20k',
    )
    assert split_name('mask_rcnn_repvit_m1_1_coco') == ('mask_rcnn', 'repvit', 'm1_1', 'coco')
