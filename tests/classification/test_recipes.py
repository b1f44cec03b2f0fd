"""The recipes, by timm's own functions: learning rates, decay, clipping, mixed targets, average."""

import copy
import importlib

import numpy as np
import pytest
import torch
from helpers import timm_reference
from helpers.repository import REPOSITORY
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from lightvit_mm.classification.samplers import (
    MultiScaleBatchSampler,
    RepeatedAugmentationSampler,
)
from lightvit_mm.engine.configs import load_config
from lightvit_mm.errors import UserError
from lightvit_mm.reproduction.schedule import build_runner, learning_rates

# Steps of an epoch; few, because every one of 300 epochs is run.
EPOCH = 4


@pytest.fixture(scope='module')
def timm():
    timm = timm_reference.import_timm()
    for part in ('loss', 'scheduler'):
        importlib.import_module(f'timm.{part}')
    return timm


def config_of(name):
    config = load_config(str(REPOSITORY / f'configs/{name}_in1k.py'))
    init_default_scope('mmengine')
    return config


@pytest.fixture
def rates(quick_runner):
    def of(name, steps):
        config = config_of(name)
        config.model.head.num_classes = 2
        return learning_rates(build_runner(config, EPOCH), steps)

    return of


def timm_rates(timm, config, epochs, epoch_of, **options):
    """What timm's scheduler gives when it is told ``epoch_of(step)`` before a step."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=config.optim_wrapper.optimizer.lr)
    scheduler = timm.scheduler.CosineLRScheduler(
        optimizer, t_initial=epochs, cycle_limit=1, **options
    )
    found = {}
    for step in (0, 1, EPOCH, 2 * EPOCH, 5 * EPOCH, 6 * EPOCH, 150 * EPOCH + 1, 300 * EPOCH - 1):
        told = epoch_of(step)
        by_epoch = options.get('t_in_epochs', True)
        scheduler.step(told) if by_epoch else scheduler.step_update(told)
        found[step] = optimizer.param_groups[0]['lr']
    return found


def test_deits_schedule(timm, rates):
    config = config_of('edgevit_xxs')
    # DeiT's code tells the epoch that has ended: epochs 0 and 1 both have the warm-up's rate.
    expected = timm_rates(
        timm, config, 300, lambda step: max(step // EPOCH - 1, 0),
        lr_min=1e-5, warmup_t=5, warmup_lr_init=1e-6,
    )  # fmt: skip
    assert expected[0] == expected[EPOCH] == 1e-6
    assert rates('edgevit_xxs', expected) == pytest.approx(expected, rel=1e-12)


def test_swins_schedule(timm, rates):
    config = config_of('shuffle_swin_extra_tiny')
    expected = timm_rates(
        timm, config, 300 * EPOCH, lambda step: max(step - 1, 0),
        lr_min=2e-7, warmup_t=20 * EPOCH, warmup_lr_init=2e-5, t_in_epochs=False,
    )  # fmt: skip
    assert rates('shuffle_swin_extra_tiny', expected) == pytest.approx(expected, rel=1e-12)


def test_t2ts_schedule(timm, rates):
    config = config_of('shuffle_t2t_vit_7')
    expected = timm_rates(
        timm, config, 300, lambda step: step // EPOCH,
        lr_min=1e-5, warmup_t=10, warmup_lr_init=1e-6,
    )  # fmt: skip
    # Ten epochs at the lowest rate follow.
    expected[310 * EPOCH - 1] = 1e-5
    assert rates('shuffle_t2t_vit_7', expected) == pytest.approx(expected, rel=1e-12)


def test_mobilevits_schedule(quick_runner):
    config = config_of('mobilevit_xxs')
    config.train_cfg.max_epochs = config.param_scheduler.epochs = 3
    length = 1251
    steps = (0, 1, 2999, 3000, 3 * length - 1)
    found = learning_rates(build_runner(config, length), steps)
    cosine = 2e-4 + (2e-3 - 2e-4) * (1 + np.cos(np.pi * 2 / 3)) / 2
    expected = {0: 2e-4, 1: 2e-4 + 6e-7, 2999: 2e-3 - 6e-7, 3000: cosine, 3 * length - 1: cosine}
    assert found == pytest.approx(expected, rel=1e-12)


# What the authors' no_weight_decay() names, by our names.
SPARED = {
    'edgevit_xxs': (),
    'repvit_m0_6': (),
    'efficientvit_m0': ('attention_biases',),
    'shuffle_deit_tiny': ('pos_embed', 'cls_token'),
    'shuffle_swin_extra_tiny': ('relative_position_bias_table',),
    'shuffle_t2t_vit_7': ('cls_token',),
}


@pytest.mark.parametrize('name', [*SPARED, 'mobilevit_xxs'])
def test_what_decays(timm, name):
    config = config_of(name)
    model = MODELS.build(config.model)
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decays = {names[id(p)]: group['weight_decay'] for group in groups for p in group['params']}
    base = config.optim_wrapper.optimizer.weight_decay
    if name == 'mobilevit_xxs':
        assert set(decays.values()) == {base}
        return
    spared = {n for n in names.values() if any(part in n.split('.') for part in SPARED[name])}
    from timm.optim import param_groups_weight_decay

    theirs = param_groups_weight_decay(model, base, no_weight_decay_list=spared)
    expected = {names[id(p)]: group['weight_decay'] for group in theirs for p in group['params']}
    assert decays == pytest.approx(expected)
    # EdgeViT's code names pos_embed too, which no tensor of it is called: its convolutions decay.
    if name == 'edgevit_xxs':
        assert decays['backbone.stages.0.blocks.0.self_attn.pos_embed.weight'] == base


def test_clipping(timm):
    config = config_of('repvit_m0_6')
    model = torch.nn.Linear(4, 4)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    twin = copy.deepcopy(model)
    for module in (model, twin):
        module.weight.grad = torch.arange(16.0).reshape(4, 4) / 4
        module.bias.grad = torch.full((4,), 1e-6)
    timm.utils.adaptive_clip_grad(twin.parameters(), 0.02)
    wrapper._clip_grad()
    assert torch.equal(model.weight.grad, twin.weight.grad)
    assert model.weight.grad.norm() < 1
    assert torch.equal(model.bias.grad, twin.bias.grad)
    assert model.bias.grad.max() > 0


def tiny(**changes):
    arch = {'embed_dims': (8, 8, 8, 8), 'depths': (1, 1, 1, 1), 'head_dim': 8}
    config = config_of('edgevit_xxs').model
    config.backbone.arch = arch
    config.head.num_classes = 10
    config.update(changes)
    return MODELS.build(config)


def test_mixed_images_and_targets(timm):
    from timm.data import Mixup
    from timm.data.random_erasing import RandomErasing

    model = tiny()
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([1, 5, 5, 9])

    def seed():
        import random

        random.seed(0)
        np.random.seed(3)
        torch.manual_seed(0)

    seed()
    expected = RandomErasing(0.25, mode='pixel', device='cpu')(images.clone())
    mixup = Mixup(0.8, 1.0, switch_prob=0.5, label_smoothing=0.1, num_classes=10)
    expected, targets = mixup(expected, labels)
    seed()
    mixed, ours = model.augment(images.clone(), labels)
    assert torch.equal(mixed, expected)
    assert torch.equal(ours, targets)
    assert torch.allclose(ours.sum(1), torch.ones(4))
    # The loss is timm's SoftTargetCrossEntropy.
    seed()
    samples = [type('Sample', (), {'gt_label': label}) for label in labels]
    torch.manual_seed(5)
    model.eval()
    seed()
    loss = model.loss(images.clone(), samples)['loss']
    reference = timm.loss.SoftTargetCrossEntropy()(model(expected), targets)
    assert torch.allclose(loss, reference)
    with pytest.raises(UserError, match='even number of images'):
        model.augment(images[:3], labels[:3])


def test_smoothing_without_mixing(timm):
    model = tiny(mixup=None, erasing=0.0).eval()
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([1, 5, 5, 9])
    samples = [type('Sample', (), {'gt_label': label}) for label in labels]
    loss = model.loss(images, samples)['loss']
    assert torch.allclose(loss, timm.loss.LabelSmoothingCrossEntropy(0.1)(model(images), labels))


@pytest.mark.parametrize(
    ('name', 'decay'), [('mobilevit_xxs', 0.9995), ('shuffle_t2t_vit_7', 0.99996)]
)
def test_the_average(timm, name, decay):
    (hook,) = config_of(name).custom_hooks
    model = torch.nn.BatchNorm1d(3)
    ours = ExponentialMovingAverage(
        model, momentum=hook['momentum'], update_buffers=hook.get('update_buffers', False)
    )
    theirs = timm.utils.ModelEmaV2(model, decay=decay)
    for step in range(3):
        with torch.no_grad():
            model.weight += 1
            model.running_mean += 2
        ours.update_parameters(model)
        if step:  # mmengine's average begins with a copy, as timm's does before the first step
            theirs.update(model)
        else:
            theirs.set(model)
    assert torch.allclose(ours.module.weight, theirs.module.weight)
    if hook.get('update_buffers'):
        assert torch.allclose(ours.module.running_mean, theirs.module.running_mean)


def test_repeated_augmentation(timm):
    data = list(range(300))
    sampler = RepeatedAugmentationSampler(data, seed=7)
    first = list(sampler)
    assert len(first) == len(sampler) == 256
    assert first[0] == first[1] == first[2] != first[3]
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(RepeatedAugmentationSampler(data, seed=8)) != first


def test_sizes_change_from_batch_to_batch(timm):
    from mmengine.dataset import DefaultSampler

    sampler = DefaultSampler(list(range(400)), seed=0)
    batches = MultiScaleBatchSampler(sampler, (20, 10))
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        epochs.append(list(batches))
        assert len(epochs[-1]) == len(batches) == 400 // 15
    assert epochs[0] == epochs[2] != epochs[1]
    for batch in epochs[0]:
        (choice,) = {choice for _, choice in batch}
        assert len(batch) == (20, 10)[choice]
    assert {batch[0][1] for batch in epochs[0]} == {0, 1}
