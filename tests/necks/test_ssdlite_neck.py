"""`SSDLiteNeck` by its rules, and in the head of MobileViT's SSDLite."""

import pytest
import torch
from helpers.repository import REPOSITORY
from helpers.variants import randomise_norms
from mmengine.registry import MODELS, init_default_scope
from torch.nn import functional as F

from lightvit_mm.engine.configs import load_config
from lightvit_mm.necks import SSDLiteNeck


def test_outputs_by_the_rules():
    neck = SSDLiteNeck([6, 8], [10, 8, 12, 4]).eval()
    randomise_norms(neck)
    fine, coarse = torch.randn(2, 6, 9, 7), torch.randn(2, 8, 5, 4)
    with torch.no_grad():
        outputs = neck((fine, coarse))
    assert [tuple(o.shape[1:]) for o in outputs] == [(10, 9, 7), (8, 5, 4), (12, 3, 2), (4, 1, 1)]

    def norm(x, prefix):
        values = [neck.state_dict()[f'{prefix}.bn.{name}'] for name in NORM]
        return F.batch_norm(x, *values)

    weights = neck.state_dict()
    projected = F.silu(norm(F.conv2d(fine, weights['projections.0.conv.weight']), 'projections.0'))
    torch.testing.assert_close(outputs[0], projected)
    assert outputs[1] is coarse, 'a map of the right width needs no projection'
    x = coarse
    depthwise, pointwise = 'extra_layers.0.depthwise_conv', 'extra_layers.0.pointwise_conv'
    x = F.conv2d(x, weights[f'{depthwise}.conv.weight'], stride=2, padding=1, groups=8)
    x = norm(x, depthwise)
    x = F.silu(norm(F.conv2d(x, weights[f'{pointwise}.conv.weight']), pointwise))
    torch.testing.assert_close(outputs[2], x)
    x = x.mean((2, 3), keepdim=True)
    x = F.silu(F.conv2d(x, weights['pooled.1.conv.weight'], weights['pooled.1.conv.bias']))
    torch.testing.assert_close(outputs[3], x)


NORM = ('running_mean', 'running_var', 'weight', 'bias')


def test_too_few_outputs():
    with pytest.raises(ValueError, match='at least two numbers more'):
        SSDLiteNeck([6, 8], [10, 8, 4])


def test_anchors_and_maps_agree_at_320():
    config = load_config(str(REPOSITORY / 'configs/ssdlite_mobilevit_xxs_coco.py'))
    init_default_scope('mmdet')
    model = MODELS.build(config.model).eval()
    with torch.no_grad():
        scores, boxes = model(torch.zeros(1, 3, 320, 320), mode='tensor')
    assert [tuple(s.shape[-2:]) for s in scores] == [(n, n) for n in (20, 10, 5, 3, 2, 1)]
    generator = model.bbox_head.prior_generator
    assert generator.num_base_priors == [6, 6, 6, 6, 6, 4]
    assert [b.shape[1] for b in boxes] == [4 * n for n in generator.num_base_priors]
    sides = [(a[2:] - a[:2]).prod().sqrt().item() for a in (g[0] for g in generator.base_anchors)]
    wanted = torch.linspace(0.1, 1.05, 7)[:6] * 320
    torch.testing.assert_close(torch.tensor(sides), wanted, rtol=1e-3, atol=0.01)
