"""The interface of timm's feature extractors, beside timm's own."""

import pytest
import torch
from helpers import timm_reference

from lightvit_mm.backbones.create import create_backbone


@pytest.fixture(scope='module')
def timm():
    return timm_reference.import_timm()


@pytest.mark.parametrize(
    ('name', 'skipped'), [('repvit_m0_9', 0), ('mobilevit_xxs', 1), ('efficientvit_m0', 0)]
)
def test_the_same_description_as_timms(timm, name, skipped):
    """timm's MobileViT has a level of stride 2 before ours."""
    from lightvit_mm.adapters.timm import FeatureList

    options = {'expand_last': True} if name.startswith('mobilevit') else {}
    ours = FeatureList(create_backbone(name, **options)).eval()
    theirs = timm.create_model(name, features_only=True).eval()
    assert type(ours.feature_info) is type(theirs.feature_info)
    for ask in ('channels', 'reduction'):
        assert getattr(ours.feature_info, ask)() == getattr(theirs.feature_info, ask)()[skipped:]
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        levels, expected = ours(image), theirs(image)
    assert type(levels) is type(expected)
    assert [level.shape for level in levels] == [level.shape for level in expected][skipped:]


def test_some_levels(timm):
    from lightvit_mm.adapters.timm import FeatureList

    features = FeatureList(create_backbone('edgevit_xxs', out_indices=(1, 3)))
    info = features.feature_info
    assert info.channels() == [72, 288]
    assert info.reduction() == [8, 32]
    assert info.get_dicts(['reduction']) == [{'reduction': 8}, {'reduction': 32}]
    assert info.channels(1) == 288
    for name in info.module_name():
        assert features.get_submodule(name) is not None
    assert len(features(torch.zeros(1, 3, 64, 64))) == 2
