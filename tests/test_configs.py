"""Every config parses, builds, trains a step and predicts."""

import pytest
import torch
from conftest import REPOSITORY
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from lightvit_mm.backbones import PyramidBackbone
from lightvit_mm.engine.running import load_config

CONFIGS = sorted((REPOSITORY / 'configs').glob('*.py'))

# Millions of parameters of whole models, counted from the authors' code and standard heads.
WHOLE_MODELS = {
    'retinanet_edgevit_xxs_coco': 13.396,
    'retinanet_edgevit_xs_coco': 16.279,
    'retinanet_edgevit_s_coco': 22.617,
    'mask_rcnn_edgevit_xxs_coco': 23.822,
    'mask_rcnn_edgevit_xs_coco': 26.487,
    'mask_rcnn_edgevit_s_coco': 32.825,
    'semantic_fpn_edgevit_xxs_ade20k': 7.921,
    'semantic_fpn_edgevit_xs_ade20k': 10.586,
    'semantic_fpn_edgevit_s_ade20k': 16.924,
}


def build(file):
    config = load_config(str(file))
    if 'roi_head' in config.model:  # a thousand regions of random weights take seconds
        config.model.train_cfg.rpn_proposal.max_per_img = 50
        config.model.test_cfg.rpn.max_per_img = 50
    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    return config, MODELS.build(config.model)


def inputs(config):
    if config.default_scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        head = config.model.get('bbox_head') or config.model.roi_head.bbox_head
        return demo_mm_inputs(
            2,
            [[3, 96, 128], [3, 80, 128]],
            num_items=[2, 1],
            num_classes=head.num_classes,
            with_mask='roi_head' in config.model,
        )
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo={'ori_shape': (96, 128), 'img_shape': (96, 128)})
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 150, (1, 96, 128)))
    images = [torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8) for _ in range(2)]
    return {'inputs': images, 'data_samples': [sample, sample.clone()]}


def test_the_heads_and_variants_of_the_readme_are_there():
    names = {file.stem for file in CONFIGS}
    for arch in ('xxs', 'xs', 's'):
        for head in ('retinanet', 'mask_rcnn'):
            assert f'{head}_edgevit_{arch}_coco' in names
        for head in ('semantic_fpn', 'upernet'):
            assert f'{head}_edgevit_{arch}_ade20k' in names


@pytest.mark.parametrize('file', CONFIGS, ids=lambda file: file.stem)
def test_training_step_and_prediction(file):
    config, model = build(file)
    if config.default_scope == 'mmseg':
        model.data_preprocessor.size = (96, 128)
    assert file.read_text().startswith('#'), 'the first line says where the recipe comes from'
    backbone = model.backbone
    assert isinstance(backbone, PyramidBackbone)
    channels = config.model.get('neck', config.model.get('decode_head', {})).get('in_channels')
    assert list(channels) == list(backbone.out_channels)
    if file.stem in WHOLE_MODELS:
        count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        assert round(count, 3) == WHOLE_MODELS[file.stem]

    data = model.data_preprocessor(inputs(config), training=True)
    losses = model.train().loss(data['inputs'], data['data_samples'])
    total, _ = model.parse_losses(losses)
    assert total.isfinite()
    total.backward()
    # A pyramid level that the neck skips still trains the stages below the next one.
    without = [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert not without

    data = model.data_preprocessor(inputs(config), training=False)
    with torch.no_grad():
        results = model.eval().predict(data['inputs'], data['data_samples'])
    assert len(results) == 2


@pytest.mark.parametrize(
    ('head', 'learning_rate'), [('retinanet', 1e-4), ('mask_rcnn', 2e-4), ('semantic_fpn', 2e-4)]
)
def test_edgevit_recipe(head, learning_rate):
    dataset = 'ade20k' if head == 'semantic_fpn' else 'coco'
    config = Config.fromfile(REPOSITORY / f'configs/{head}_edgevit_s_{dataset}.py')
    assert config.optim_wrapper.optimizer == {
        'type': 'AdamW',
        'lr': learning_rate,
        'weight_decay': 1e-4,
    }
    assert 'paramwise_cfg' not in config.optim_wrapper
    assert 'clip_grad' not in config.optim_wrapper
    assert config.auto_scale_lr.base_batch_size == (32 if dataset == 'ade20k' else 16)
