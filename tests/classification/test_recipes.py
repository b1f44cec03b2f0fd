"""Parts of the recipes that test_engines.py does not run."""

import copy

import pytest
import torch
from helpers import timm_reference
from helpers.repository import REPOSITORY
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from lightvit_mm.classification.samplers import (
    MultiScaleBatchSampler,
    RepeatedAugmentationSampler,
)
from lightvit_mm.engine.configs import load_config
from lightvit_mm.errors import UserError


@pytest.fixture(scope='module')
def timm():
    return timm_reference.import_timm()


def config_of(name):
    config = load_config(str(REPOSITORY / f'configs/{name}_in1k.py'))
    init_default_scope('mmengine')
    return config


# What the authors' no_weight_decay() names, by our names.
SPARED = {
    'repvit_m0_6': (),
    'efficientvit_m0': ('attention_biases',),
    'shuffle_deit_tiny': ('pos_embed', 'cls_token'),
}


@pytest.mark.parametrize('name', SPARED)
def test_what_decays(timm, name):
    config = config_of(name)
    model = MODELS.build(config.model)
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decays = {names[id(p)]: group['weight_decay'] for group in groups for p in group['params']}
    base = config.optim_wrapper.optimizer.weight_decay
    spared = {n for n in names.values() if any(part in n.split('.') for part in SPARED[name])}
    from timm.optim import param_groups_weight_decay

    theirs = param_groups_weight_decay(model, base, no_weight_decay_list=spared)
    expected = {names[id(p)]: group['weight_decay'] for group in theirs for p in group['params']}
    assert decays == pytest.approx(expected)


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


def test_mixing_needs_pairs(timm):
    model = MODELS.build(config_of('edgevit_xxs').model)
    with pytest.raises(UserError, match='even number of images'):
        model.augment(torch.randn(3, 3, 32, 32), torch.tensor([1, 5, 9]))


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
