"""Drawn inputs: any variant, size, batch, levels, precision and form give the promised pyramid.

``LIGHTVIT_MM_DRAWS=500 pytest tests/backbones/test_any_input.py`` draws as many, and new ones each
time; without it they are few and the same.
"""

import math
import os

import torch
from helpers.variants import FAMILIES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

DRAWS = int(os.environ.get('LIGHTVIT_MM_DRAWS', 0))
ARCHS = [(family, arch) for family in FAMILIES for arch in family.arch_settings]
FORMS = ('eval', 'train', 'deploy', 'switched', 'checkpointed')


@st.composite
def inputs(draw):
    family, arch = draw(st.sampled_from(ARCHS))
    levels = range(len(family.level_strides))
    indices = draw(st.sets(st.sampled_from(levels), min_size=1))
    form = draw(st.sampled_from(FORMS))
    training = form in ('train', 'checkpointed')
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    # A strided convolution of torch 2.13 in bfloat16 over a single pixel has the gradient of memory
    # that nobody wrote: nn.Conv2d(16, 32, 3, 2, 1) shows it.
    side = st.integers(65 if training and dtype == torch.bfloat16 else 1, 160)
    return {
        'family': family,
        'arch': arch,
        'out_indices': tuple(sorted(indices)),
        'form': form,
        # BatchNorm cannot train on a single value a channel.
        'batch': draw(st.integers(2 if training else 1, 3)),
        'height': draw(side),
        'width': draw(side),
        'dtype': dtype,
        'channels_last': draw(st.booleans()),
        'seed': draw(st.integers(0, 99)),
    }


@settings(
    max_examples=DRAWS or 40,
    derandomize=not DRAWS,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(inputs())
def test_the_pyramid_is_as_promised(drawn):
    torch.manual_seed(drawn['seed'])
    form, batch, dtype = drawn['form'], drawn['batch'], drawn['dtype']
    model = drawn['family'](
        arch=drawn['arch'],
        out_indices=drawn['out_indices'],
        deploy=form == 'deploy',
        with_cp=form == 'checkpointed',
    ).to(dtype)
    training = form in ('train', 'checkpointed')
    model.train(training)
    if form == 'switched':
        model.switch_to_deploy()
    x = torch.randn(batch, 3, drawn['height'], drawn['width'], dtype=dtype)
    if drawn['channels_last']:
        x = x.to(memory_format=torch.channels_last)
    with torch.set_grad_enabled(training):
        outputs = model(x)
    for output, channels, stride in zip(
        outputs, model.out_channels, model.out_strides, strict=True
    ):
        sides = (math.ceil(drawn[side] / stride) for side in ('height', 'width'))
        assert output.shape == (batch, channels, *sides)
        assert output.dtype == dtype
        assert output.isfinite().all()
    if training:
        sum(output.square().mean() for output in outputs).backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients)
