"""Images on their way into an exported file."""

import numpy as np
import pytest
import torch
from torch import nn

from lightvit_mm.export.modules import Preprocessing
from lightvit_mm.runtimes.images import fit_image, padding_of

SETTINGS = {'mean': [1.5, 20.0, 300.0], 'std': [2.0, 3.0, 4.0]}


@pytest.mark.parametrize('settings', [SETTINGS, {**SETTINGS, 'bgr_to_rgb': True}, {}])
def test_padding_becomes_zero(settings):
    image = np.random.default_rng(0).integers(1, 256, (20, 30, 3), dtype=np.uint8)
    inputs, size = fit_image(image, (32, 64), padding_of(settings))
    assert inputs.dtype == np.float32
    assert inputs.shape == (1, 3, 32, 64)
    assert size == (20, 30)
    assert (inputs[0, :, :20, :30] == image.transpose(2, 0, 1)).all()
    normalised = Preprocessing(nn.Identity(), settings)(torch.from_numpy(inputs))
    assert not normalised[..., 20:, :].any()
    assert not normalised[..., 30:].any()
    assert normalised[..., :20, :30].any()


def test_larger_images_are_shrunk_in_their_ratio():
    image = np.full((100, 50, 3), 7, np.uint8)
    inputs, size = fit_image(image, (32, 64), np.zeros(3))
    assert size == (32, 16)
    assert (inputs[..., :16] == 7).all()
    assert not inputs[..., 16:].any()
