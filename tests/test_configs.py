"""Every config parses and builds; one for each family and head trains a step and predicts."""

import pytest
import torch
import yaml
from helpers.configs import load_once
from helpers.demo_inputs import demo_inputs
from helpers.repository import REPOSITORY
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from lightvit_mm.backbones import (
    EdgeViT,
    EfficientViT,
    MobileViT,
    PyramidBackbone,
    RepViT,
    ShuffleDeiT,
    ShuffleSwin,
    ShuffleT2TViT,
)
from lightvit_mm.engine.model_checks import check_channels
from lightvit_mm.measure.complexity import count_parameters

ALL = sorted((REPOSITORY / 'configs').glob('*.py'))
CLASSIFIERS = [file for file in ALL if '_in1k' in file.stem]
CONFIGS = [file for file in ALL if file not in CLASSIFIERS]

METAFILE = yaml.safe_load((REPOSITORY / 'configs' / 'metafile.yml').read_text())
MEASURED = {model['Name']: model['Metadata']['Parameters'] for model in METAFILE['Models']}
# Millions of parameters of whole models, counted from the authors' code and standard heads. Those
# of published rows are in tests/reproduction.
WHOLE_MODELS = {
    'retinanet_repvit_m1_1_coco': 18.008,
    'retinanet_repvit_m1_5_coco': 23.85,
    'retinanet_repvit_m2_3_coco': 32.99,
    'retinanet_mobilevit_xxs_coco': 9.98,
    'retinanet_mobilevit_xs_coco': 11.0,
    'retinanet_mobilevit_s_coco': 14.13,
    'mask_rcnn_mobilevit_xxs_coco': 20.9,
    'mask_rcnn_mobilevit_xs_coco': 21.9,
    'mask_rcnn_mobilevit_s_coco': 24.9,
    'semantic_fpn_mobilevit_xxs_ade20k': 4.985,  # 4.99 in the source, rounded twice
    'semantic_fpn_mobilevit_xs_ade20k': 5.97,
    'semantic_fpn_mobilevit_s_ade20k': 8.95,
}


def build(file):
    """The model of a config, with fewer channels and regions in the heads that are slow."""
    config = load_once(file)
    if 'roi_head' in config.model:
        config.model.train_cfg.rpn_proposal.max_per_img = 20
        config.model.test_cfg.rpn.max_per_img = 20
        config.model.roi_head.bbox_head.fc_out_channels = 64
    if config.model.get('decode_head', {}).get('type') == 'UPerHead':
        config.model.decode_head.channels = 64
    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    return config, MODELS.build(config.model)


FAMILIES = {
    'edgevit': EdgeViT,
    'mobilevit': MobileViT,
    'repvit': RepViT,
    'efficientvit': EfficientViT,
    'shuffle_swin': ShuffleSwin,
    'shuffle_deit': ShuffleDeiT,
    'shuffle_t2t_vit': ShuffleT2TViT,
}
SMALLEST = [f'{name}_{next(iter(family.arch_settings))}' for name, family in FAMILIES.items()]
# RTMDet-Ins is for larger variants.
SMALLEST += [f'rtmdet_ins_{arch}' for arch in ('mobilevit_s', 'repvit_m0_9', 'efficientvit_m2')]
HEADS = ('bbox_head', 'rpn_head', 'decode_head', 'auxiliary_head')


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize(
    ('head', 'dataset'),
    [
        ('retinanet', 'coco'),
        ('mask_rcnn', 'coco'),
        ('light', 'coco'),
        ('rtmdet', 'coco'),
        ('semantic_fpn', 'ade20k'),
        ('segformer', 'ade20k'),
        ('lraspp', 'ade20k'),
        ('upernet', 'ade20k'),
    ],
)
def test_every_variant_has_every_head(family, head, dataset):
    for arch in FAMILIES[family].arch_settings:
        assert REPOSITORY / f'configs/{head}_{family}_{arch}_{dataset}.py' in CONFIGS


def test_every_variant_has_a_classifier():
    names = {file.stem for file in CLASSIFIERS}
    for family, backbone in FAMILIES.items():
        for arch in backbone.arch_settings:
            assert f'{family}_{arch}_in1k' in names
            if family == 'repvit':
                assert f'{family}_{arch}_in1k_distill' in names


def check_name(file, backbone):
    """The name of a config says which family and variant it has."""
    (family,) = (name for name, kind in FAMILIES.items() if kind.__name__ == backbone.type)
    assert f'_{family}_{backbone.arch}_' in f'_{file.stem}'


def check_weights_and_freezing(file, backbone):
    """Weights and freezing are as published."""
    released = not file.stem.endswith('_shapes') and 'shuffle' not in file.stem
    assert ('init_cfg' in backbone) is released
    assert backbone.get('frozen_stages', -1) == -1
    if backbone.type == 'RepViT' and released:
        detection = file.stem.endswith('_coco')
        assert backbone.tap == ('stage' if detection else 'pre_block')
        epochs = '450e' if backbone.arch == 'm2_3' else '300e'
        assert epochs in backbone.init_cfg.checkpoint or 'timm://' in backbone.init_cfg.checkpoint


@pytest.mark.parametrize('file', CONFIGS, ids=lambda file: file.stem)
def test_parts_fit_and_have_the_published_size(file):
    assert file.read_text().startswith('#'), 'the first line says where the recipe comes from'
    config = load_once(file)
    check_name(file, config.model.backbone)
    check_weights_and_freezing(file, config.model.backbone)
    init_default_scope(config.default_scope)
    with torch.device('meta'):
        model = MODELS.build(config.model).eval()
        backbone = model.backbone
        levels = [
            torch.empty(2, channels, 256 // stride, 256 // stride)
            for channels, stride in zip(backbone.out_channels, backbone.out_strides, strict=True)
        ]
        levels = model.neck(levels) if model.with_neck else levels
        for name in HEADS:
            if hasattr(model, name):
                getattr(model, name)(levels)
    assert isinstance(backbone, PyramidBackbone)
    first = config.model.get('neck', config.model.get('decode_head', {}))
    first = first[0] if isinstance(first, list) else first
    channels = first.get('in_channels')
    channels = [channels] if isinstance(channels, int) else channels
    assert list(channels) == list(backbone.out_channels)
    check_channels(model, config.model)
    size = count_parameters(backbone)
    if file.stem.startswith('segformer_'):
        assert config.model.decode_head.channels == (128 if size < 5e6 else 256)
    if file.stem.startswith('rtmdet_'):
        width = 80 if size < 2.35e6 else 96 if size < 5e6 else 128
        assert config.model.bbox_head.in_channels == width
        boxes = file.stem.replace('_ins_', '_')
        twin = REPOSITORY / f'configs/{boxes.replace("rtmdet_", "rtmdet_ins_")}.py'
        assert twin.exists() is (size >= 3.5e6)
        if file == twin:
            boxes = load_once(REPOSITORY / f'configs/{boxes}.py')
            assert config.model.backbone == boxes.model.backbone
            assert config.model.neck == boxes.model.neck
    count = count_parameters(model)
    if not file.stem.endswith('_shapes'):
        assert count == MEASURED[file.stem], 'python tools/model_zoo.py brings the zoo up to date'
    if file.stem in WHOLE_MODELS:
        figure = str(WHOLE_MODELS[file.stem])
        assert f'{count / 1e6:.{len(figure.split(".")[1])}f}' == figure


@pytest.mark.parametrize('file', CLASSIFIERS, ids=lambda file: file.stem)
def test_classifiers_build_and_have_the_measured_size(file):
    assert file.read_text().startswith('#'), 'the first line says where the recipe comes from'
    config = load_once(file)
    check_name(file, config.model.backbone)
    init_default_scope(config.default_scope)
    with torch.device('meta'):
        model = MODELS.build(config.model).eval()
        side = config.val_dataloader.dataset.transform.input_size
        assert model(torch.empty(1, 3, side, side)).shape == (1, 1000)
    # A level that nothing reads would have parameters without a gradient.
    assert len(model.backbone.out_channels) == 1
    count = count_parameters(model)
    assert count == MEASURED[file.stem], 'python tools/model_zoo.py brings the zoo up to date'
    assert config.train_dataloader.batch_size == (328, 224, 128, 128, 128) or (
        config.auto_scale_lr.base_batch_size == 8 * config.train_dataloader.batch_size
    )


# With one variant of a family, a head runs the code that it runs with all of them.
@pytest.mark.parametrize(
    'file',
    [f for f in CONFIGS if any(f'_{name}_' in f'_{f.name}' for name in SMALLEST)],
    ids=lambda file: file.stem,
)
def test_training_step_and_prediction(file):
    config, model = build(file)
    if config.default_scope == 'mmseg':
        model.data_preprocessor.size = (96, 128)
    data = model.data_preprocessor(demo_inputs(config), training=True)
    losses = model.train().loss(data['inputs'], data['data_samples'])
    total, _ = model.parse_losses(losses)
    assert total.isfinite()
    total.backward()
    # A pyramid level that the neck skips still trains the stages below the next one.
    trained = [(n, p) for n, p in model.backbone.named_parameters() if p.requires_grad]
    assert trained
    assert not [name for name, parameter in trained if parameter.grad is None]

    data = model.data_preprocessor(demo_inputs(config), training=False)
    with torch.no_grad():
        results = model.eval().predict(data['inputs'], data['data_samples'])
    assert len(results) == 2


@pytest.mark.parametrize(
    'file', [f for f in CONFIGS if 'mobilevit' in f.name], ids=lambda file: file.stem
)
def test_mobilevit_gets_the_input_that_its_weights_want(file):
    config = load_once(file)
    preprocessor = config.model.data_preprocessor
    assert list(preprocessor.mean) == [0, 0, 0]
    assert list(preprocessor.std) == [255, 255, 255]
    assert preprocessor.bgr_to_rgb is False
    init_default_scope(config.default_scope)
    # One blue pixel, as OpenCV reads it: channel 0 arrives as 1, the others as 0.
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[0] = 255
    sample = demo_inputs(config)['data_samples'][0]
    data = MODELS.build(preprocessor)({'inputs': [image], 'data_samples': [sample]})
    assert data['inputs'][0, :, 0, 0].tolist() == [1, 0, 0]


def test_the_decay_of_efficientvit_spares_the_attention_biases_alone():
    config = load_once(REPOSITORY / 'configs/retinanet_efficientvit_m0_coco.py')
    init_default_scope('mmdet')
    model = MODELS.build(config.model)
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    spared = {
        names[id(parameter)]
        for group in optimizer.param_groups
        for parameter in group['params']
        if group['weight_decay'] == 0
    }
    assert spared == {name for name in names.values() if 'attention_biases' in name}
    assert len(spared) == sum(model.backbone.arch['depths'])
