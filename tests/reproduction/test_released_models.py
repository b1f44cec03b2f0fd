"""Released models load strictly into our configs, with every parameter name.

The released files are not available here. Their parameter names are those of the backbone's
official layout and of mmdet's and mmseg's heads, their wrapper that of mmcv 1.x, their values
random.
"""

from collections import OrderedDict

import pytest
import torch
from helpers import golden_files, official_repvit
from helpers.repository import REPOSITORY
from helpers.variants import largest_deviation
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint

from lightvit_mm.backbones import RepViT
from lightvit_mm.engine.configs import load_config


def official_backbone(name):
    if 'efficientvit_m4' in name:
        return golden_files.weights(golden_files.read('efficientvit_m4'))
    arch = RepViT.arch_settings[name.split('repvit_')[1].rsplit('_', 1)[0]]
    return official_repvit.weights(arch['embed_dims'], arch['depths'])


def classifier(name: str) -> bool:
    return name.startswith(('classifier.', 'head.')) or name.endswith('attention_bias_idxs')


@pytest.mark.parametrize(
    'name',
    [
        'mask_rcnn_repvit_m1_1_coco',
        'semantic_fpn_repvit_m1_1_ade20k',
        'retinanet_efficientvit_m4_coco',
        'mask_rcnn_efficientvit_m4_coco',
    ],
)
def test_a_released_model_loads_strictly(name, tmp_path, mm_log):
    config = load_config(str(REPOSITORY / f'configs/{name}.py'))
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model).eval()
    official = official_backbone(name)
    released = OrderedDict(
        (f'backbone.{key}', value) for key, value in official.items() if not classifier(key)
    )
    for key, value in model.state_dict().items():
        if not key.startswith('backbone.'):
            released[key] = torch.randn(value.shape) if value.is_floating_point() else value
    file = tmp_path / 'released.pth'
    meta = {'mmdet_version': '2.28.2', 'CLASSES': ('person',), 'epoch': 12, 'iter': 87960}
    torch.save({'meta': meta, 'state_dict': released, 'optimizer': {'state': {}}}, file)

    load_checkpoint(model, str(file), strict=True)
    report = [line for line in mm_log if 'official layout' in line]
    assert len(report) == 1
    for key, value in model.state_dict().items():
        if not key.startswith('backbone.'):
            assert torch.equal(value, released[key]), key
    alone = type(model.backbone)(
        **{k: v for k, v in config.model.backbone.items() if k not in ('type', 'init_cfg')}
    ).eval()
    alone.load_state_dict(official)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert largest_deviation(model.backbone(x), alone(x)) == 0


def test_a_tensor_less_of_a_head_is_an_error(tmp_path):
    config = load_config(str(REPOSITORY / 'configs/retinanet_efficientvit_m4_coco.py'))
    init_default_scope('mmdet')
    model = MODELS.build(config.model)
    weights = dict(model.state_dict())
    del weights['neck.extra_trans_convs.0.conv.weight']
    file = tmp_path / 'released.pth'
    torch.save({'state_dict': weights}, file)
    with pytest.raises(RuntimeError, match='extra_trans_convs'):
        load_checkpoint(model, str(file), strict=True)
