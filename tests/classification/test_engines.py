"""Two hundred steps of each recipe beside timm's own functions, in 20 epochs instead of 300."""

import random
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers import timm_reference
from helpers.repository import REPOSITORY
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import DATASETS
from mmengine.structures import BaseDataElement

from lightvit_mm.engine.configs import load_config
from lightvit_mm.engine.first_screen import QuietRunner

EPOCH, EPOCHS = 10, 20  # steps of an epoch, and how many epochs there are
WARMUP_EPOCHS, WARMUP_STEPS = 5, 30
BATCH, CLASSES = 4, 10
WATCHED = (0, 1, 5 * EPOCH, EPOCH * EPOCHS - 1)

FOUR = {'depths': (1, 1, 1, 1)}
EIGHTS = {'embed_dims': (8, 8, 8, 8), **FOUR}
# One of each training code; RepViT's and EfficientViT's is EdgeViT's with clipping.
ARCHS = {
    'edgevit_xxs': {**EIGHTS, 'head_dim': 8},
    'shuffle_swin_extra_tiny': {
        **FOUR, 'attend_dims': (8, 16, 32, 64), 'num_heads': (1, 1, 1, 1),
    },
    'shuffle_t2t_vit_7': {**FOUR, 'attend_dims': 8, 'num_heads': 1},
    'mobilevit_xxs': {
        **EIGHTS, 'stem_dims': 8, 'transformer_dims': (8, 8, 8), 'expand_ratio': 2,
    },
}  # fmt: skip


class Recipe(NamedTuple):
    """What a paper or its code states, for 300 epochs."""

    learning_rate: float
    decay: float
    # Epochs to train, and of the cosine; length of the warm-up, MobileViT's in steps.
    lengths: tuple[int, int, int]
    # Parts of the names, ours, of what has two or more dimensions and does not decay.
    spared: tuple[str, ...] = ()
    average_decay: float | None = None


RECIPES = {
    # Its code spares pos_embed too, a name that no tensor has: those convolutions decay.
    'edgevit_xxs': Recipe(2e-3, 0.05, (300, 300, 5)),
    'shuffle_swin_extra_tiny': Recipe(
        2e-3, 0.05, (300, 300, 20), ('relative_position_bias_table',)
    ),
    'shuffle_t2t_vit_7': Recipe(1e-3, 0.03, (310, 300, 10), ('cls_token',), 0.99996),
    'mobilevit_xxs': Recipe(2e-3, 0.01, (300, 300, 3000), average_decay=0.9995),
}


@DATASETS.register_module(force=True)
class Noise(torch.utils.data.Dataset):
    """Images of noise for ten steps."""

    metainfo = {'classes': tuple('abcdefghij')}

    def __len__(self):
        return BATCH * EPOCH

    def __getitem__(self, number):
        generator = torch.Generator().manual_seed(number)
        sample = BaseDataElement()
        sample.gt_label = number % CLASSES
        pixels = torch.randint(256, (3, 32, 32), generator=generator, dtype=torch.uint8)
        return {'inputs': pixels, 'data_samples': sample}


def lengths(name):
    """Those of the 200 steps; T2T's ten epochs at the lowest rate become two."""
    cosine = EPOCHS - 2 if 't2t' in name else EPOCHS
    return EPOCHS, cosine, WARMUP_STEPS if 'mobile' in name else WARMUP_EPOCHS


def config_of(name, work_dir):
    config = load_config(str(REPOSITORY / f'configs/{name}_in1k.py'), work_dir=str(work_dir))
    config.model.backbone.arch = ARCHS[name]
    config.model.head.num_classes = CLASSES
    config.train_dataloader = {
        'batch_size': BATCH, 'num_workers': 0, 'drop_last': True,
        'sampler': {'type': 'DefaultSampler', 'shuffle': True}, 'dataset': {'type': 'Noise'},
    }  # fmt: skip
    for part in ('val', 'test'):
        for kind in ('cfg', 'dataloader', 'evaluator'):
            config[f'{part}_{kind}'] = None
    schedule = config.param_scheduler
    warmup = 'warmup_steps' if 'mobile' in name else 'warmup_epochs'
    stated = (config.train_cfg.max_epochs, schedule.epochs, schedule[warmup])
    assert stated == RECIPES[name].lengths
    config.train_cfg.max_epochs, schedule.epochs, schedule[warmup] = lengths(name)
    config.default_hooks.checkpoint.interval = -1
    config.randomness = {'seed': 0}
    config.log_level = 'ERROR'
    return config


class Schedule:
    """timm's scheduler, stepped when and with what the authors' training loops step it."""

    def __init__(self, name, learning_rate):
        from timm.scheduler import CosineLRScheduler

        self.name = name
        self.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], learning_rate)
        options = {
            'edgevit_xxs': {'lr_min': 1e-5, 'warmup_t': WARMUP_EPOCHS, 'warmup_lr_init': 1e-6},
            'shuffle_swin_extra_tiny': {
                'lr_min': 2e-7, 'warmup_t': WARMUP_EPOCHS * EPOCH, 'warmup_lr_init': 2e-5,
                't_in_epochs': False,
            },
            'mobilevit_xxs': {'lr_min': 2e-4},
        }  # fmt: skip
        _, epochs, _ = lengths(name)
        length = epochs * EPOCH if 'swin' in name else epochs
        self.scheduler = CosineLRScheduler(
            self.optimizer, length, cycle_limit=1, **options.get(name, options['edgevit_xxs'])
        )

    def rate(self, step):
        rate = self.optimizer.param_groups[0]['lr']
        if 'mobile' in self.name and step < WARMUP_STEPS:  # ml-cvnets's, which timm has not
            return 2e-4 + (2e-3 - 2e-4) * step / WARMUP_STEPS
        return rate

    def advance(self, step):
        if 'swin' in self.name:
            self.scheduler.step_update(step)
        elif (step + 1) % EPOCH == 0:
            # DeiT's code gives the epoch that has ended, T2T's and ml-cvnets the one to come.
            ended = step // EPOCH
            self.scheduler.step(ended + 1 if self.name[:3] in ('mob', 'shu') else ended)


def random_state():
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def restore(state):
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])


class BesideTimm(Hook):
    """Runs timm's functions beside those of a training, and compares."""

    priority = 'LOWEST'  # after the average was updated

    def __init__(self, name):
        self.name, self.recipe = name, RECIPES[name]
        self.schedule = Schedule(name, self.recipe.learning_rate)
        self.rates, self.compared, self.average = [], [], None

    def before_train(self, runner):
        from timm.optim import param_groups_weight_decay
        from timm.utils import ModelEmaV3

        model = runner.model
        self.augment, model.augment = model.augment, self.augment_beside
        model.head.register_forward_hook(lambda _, __, logits: setattr(self, 'logits', logits))
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        spared = [n for n in self.names.values() if any(s in n for s in self.recipe.spared)]
        groups = param_groups_weight_decay(
            model,
            self.recipe.decay,
            weight_decay_exclude_1d=self.name != 'mobilevit_xxs',  # there, everything decays
            no_weight_decay_list=spared,
        )
        self.decays = {self.names[id(p)]: g['weight_decay'] for g in groups for p in g['params']}
        if self.recipe.average_decay:
            self.average = ModelEmaV3(model, decay=self.recipe.average_decay)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.step = runner.iter
        self.rates.append(self.schedule.rate(self.step))

    def augment_beside(self, images, labels):
        """What the model does with a batch, and what timm does with the same random numbers."""
        before = random_state()
        given, self.labels = images.clone(), labels
        images, self.targets = self.augment(images, labels)
        if self.name != 'mobilevit_xxs':
            from timm.data import Mixup
            from timm.data.random_erasing import RandomErasing

            restore(before)
            given = RandomErasing(0.25, mode='pixel', device='cpu')(given)
            mixup = Mixup(0.8, 1.0, switch_prob=0.5, label_smoothing=0.1, num_classes=CLASSES)
            given, targets = mixup(given, labels)
            assert torch.equal(images, given)
            assert torch.equal(self.targets, targets)
        return images, self.targets

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

        self.schedule.advance(self.step)
        if self.average:
            # mmengine's average begins with a copy after the first step, timm's before it.
            (self.average.update if self.step else self.average.set)(runner.model)
        if self.step not in WATCHED:
            return
        mixes = self.targets.ndim == 2
        loss = SoftTargetCrossEntropy() if mixes else LabelSmoothingCrossEntropy(0.1)
        assert torch.allclose(outputs['loss'], loss(self.logits, self.targets))
        groups = runner.optim_wrapper.optimizer.param_groups
        found = {self.names[id(p)]: g['weight_decay'] for g in groups for p in g['params']}
        assert found == self.decays
        averages = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
        assert bool(averages) == bool(self.average)
        for average in averages:
            expected = self.average.module.state_dict()
            for key, value in average.module.state_dict().items():
                if value.is_floating_point():
                    torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-7)
        self.compared.append(self.step)


@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_beside_timm(name, quick_runner, tmp_path):
    timm_reference.import_timm()
    runner = QuietRunner.from_cfg(config_of(name, tmp_path))
    beside = BesideTimm(name)
    runner.register_hook(beside)
    runner.train()
    assert tuple(beside.compared) == WATCHED
    logged, _ = runner.message_hub.get_scalar('train/lr').data
    assert len(logged) == EPOCH * EPOCHS
    np.testing.assert_allclose(logged, beside.rates, rtol=1e-12)
