"""Our base configs give the same losses as OpenMMLab's with one of our backbones in them."""

import copy

import pytest
import torch
from helpers.demo_inputs import demo_inputs
from helpers.repository import REPOSITORY
from mmengine.hub import get_config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch.nn.modules.batchnorm import _BatchNorm

from lightvit_mm.engine.configs import load_config

NORMS = (_BatchNorm, torch.nn.GroupNorm, torch.nn.LayerNorm)
CHANNELS = [36, 72, 144, 288]
# Our config; theirs, and what changes in it when our backbone replaces ResNet-50.
CONFIGS = {
    'retinanet_edgevit_xxs_coco': (
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        {'neck': {'in_channels': CHANNELS}},
    ),
    'mask_rcnn_edgevit_xxs_coco': (
        'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        {'neck': {'in_channels': CHANNELS}},
    ),
    'semantic_fpn_edgevit_xxs_ade20k': (
        'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py',
        {'pretrained': None, 'neck': {'in_channels': CHANNELS}},
    ),
    'segformer_edgevit_xxs_ade20k': (
        'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
        {'pretrained': None, 'decode_head': {'in_channels': CHANNELS, 'channels': 128}},
    ),
    'upernet_edgevit_xxs_ade20k': (
        'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
        {
            'pretrained': None,
            'decode_head': {'in_channels': CHANNELS},
            'auxiliary_head': {'in_channels': CHANNELS[2]},
        },
    ),
}


def losses(model_config, scope, data):
    init_default_scope(scope)
    torch.manual_seed(0)
    model = MODELS.build(model_config)
    if scope == 'mmseg':
        model.data_preprocessor.size = (96, 128)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout2d):
                module.p = 0.0
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    data = model.data_preprocessor(copy.deepcopy(data), training=True)
    torch.manual_seed(0)  # of the samplers in Mask R-CNN
    return shapes, model.train().loss(data['inputs'], data['data_samples'])


@pytest.mark.parametrize('name', CONFIGS)
def test_the_losses_are_those_of_openmmlabs_config(name, tmp_path):
    base, changes = CONFIGS[name]
    ours = load_config(str(REPOSITORY / f'configs/{name}.py'))
    ours.model.backbone.drop_path_rate = 0.0
    backbone = {**ours.model.backbone, '_delete_': True}
    file = tmp_path / 'theirs.py'
    file.write_text(
        f"_base_ = '{base}'\n"
        "custom_imports = dict(imports=['lightvit_mm'])\n"
        f'model = {dict(backbone=backbone, **changes)}\n'
    )
    theirs = load_config(str(file))
    data = demo_inputs(ours)
    shapes, loss = losses(ours.model, ours.default_scope, data)
    expected_shapes, expected = losses(theirs.model, ours.default_scope, data)
    assert shapes == expected_shapes
    assert set(loss) == set(expected)
    for part in expected:
        torch.testing.assert_close(loss[part], expected[part], rtol=0, atol=0, msg=part)


def without_backends(value):
    """A part of a config without the file backends of mmdet's data sets."""
    if isinstance(value, dict):
        return {k: without_backends(v) for k, v in value.items() if k != 'backend_args'}
    return [without_backends(v) for v in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize(
    ('head', 'name'), [('rtmdet', 'rtmdet_tiny'), ('rtmdet_ins', 'rtmdet-ins_tiny')]
)
def test_the_recipe_of_rtmdet_is_that_of_mmdet(head, name):
    ours = load_config(str(REPOSITORY / f'configs/{head}_repvit_m0_9_coco.py'))
    theirs = get_config(f'mmdet::rtmdet/{name}_8xb32-300e_coco.py')
    for key in (
        'train_pipeline', 'train_pipeline_stage2', 'test_pipeline', 'optim_wrapper',
        'param_scheduler', 'train_cfg', 'custom_hooks',
    ):  # fmt: skip
        assert without_backends(ours[key]) == without_backends(theirs[key]), key
    assert ours.train_dataloader.dataset.pipeline == ours.train_pipeline
    assert ours.val_evaluator.metric == theirs.val_evaluator.metric
    assert ours.model.test_cfg == theirs.model.test_cfg
    assert ours.model.train_cfg == theirs.model.train_cfg
    init_default_scope('mmdet')
    heads = [MODELS.build(config.model.bbox_head) for config in (ours, theirs)]
    # Without a GPU, our configs get the plain norm.
    assert str(heads[0]) == str(heads[1]).replace('SyncBatchNorm', 'BatchNorm2d')
    for loss in ('loss_cls', 'loss_bbox', 'loss_mask'):
        if hasattr(heads[1], loss):
            assert vars(getattr(heads[0], loss)) == vars(getattr(heads[1], loss)), loss
    assert ours.train_dataloader.batch_size == theirs.train_dataloader.batch_size == 32


def test_the_recipe_of_segformer_is_that_of_mmseg():
    ours = load_config(str(REPOSITORY / 'configs/segformer_edgevit_xxs_ade20k.py'))
    theirs = get_config('mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py')
    for key in ('param_scheduler', 'train_cfg'):
        assert ours[key] == theirs[key]
    assert ours.optim_wrapper.optimizer == theirs.optim_wrapper.optimizer
    assert ours.train_dataloader.batch_size == theirs.train_dataloader.batch_size
    init_default_scope('mmseg')
    model = MODELS.build(ours.model)
    groups = build_optim_wrapper(model, ours.optim_wrapper).optimizer.param_groups
    rates = {id(p): (g['lr'], g['weight_decay']) for g in groups for p in g['params']}
    for name, parameter in model.named_parameters():
        # mmseg spares the norms of the backbone from decay, by their names in its own.
        is_norm = isinstance(model.get_submodule(name.rpartition('.')[0]), NORMS)
        in_head = name.startswith('decode_head')
        expected = (6e-4, 0.01) if in_head else (6e-5, 0.0 if is_norm else 0.01)
        assert rates[id(parameter)] == pytest.approx(expected), name
