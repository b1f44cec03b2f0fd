"""The slow reference has the values of the package, so that comparing their speed is fair."""

import originals
import pytest
import torch
from helpers.variants import largest_deviation, randomise_norms

from lightvit_mm import backbones

SMALL = {
    'EdgeViT': {'embed_dims': (24, 48, 72, 96), 'depths': (1, 1, 2, 1), 'head_dim': 24},
    'RepViT': {'embed_dims': (16, 32, 48, 64), 'depths': (1, 2, 3, 1)},
    'EfficientViT': backbones.EfficientViT.arch_settings['m1'],
    'MobileViT': backbones.MobileViT.arch_settings['xxs'],
}
SIZES = {'EdgeViT': (64, 96), 'RepViT': (97, 131), 'EfficientViT': (448, 448)}


def pair(name: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The slow reference and the package's backbone, with the same weights."""
    reference = originals.FAMILIES[name](**SMALL[name])
    randomise_norms(reference)
    ours = getattr(backbones, name)(SMALL[name])
    if name == 'EfficientViT':
        for table in (p for n, p in reference.named_parameters() if 'biases' in n):
            torch.nn.init.normal_(table)
    ours.load_state_dict(reference.state_dict())
    return reference, ours


@pytest.mark.parametrize('name', originals.FAMILIES)
def test_deploy_form_equals_the_fused_reference(name: str):
    reference, ours = pair(name)
    x = torch.randn(1, 3, *SIZES.get(name, (97, 131)))
    with torch.inference_mode():
        expected = originals.fuse(reference.eval())(x)
        assert largest_deviation(ours.eval().switch_to_deploy()(x), expected) < 1e-4


@pytest.mark.parametrize('name', originals.FAMILIES)
def test_gradients_of_training_form_equal(name: str):
    reference, ours = pair(name)
    images = torch.randn(2, 3, *SIZES.get(name, (97, 131)), dtype=torch.double)
    gradients = []
    for model in (reference.double(), ours.double()):
        x = images.clone().requires_grad_()
        outputs = model.train()(x)
        weighted = [(out * torch.linspace(-1, 1, out.shape[1]).view(-1, 1, 1)) for out in outputs]
        sum(out.square().mean() for out in weighted).backward()
        gradients.append([x.grad, *(p.grad.norm() for p in model.parameters())])
    assert (gradients[1][0] - gradients[0][0]).abs().max() < 1e-4 * gradients[0][0].std()
    norms = [torch.stack(sorted(g[1:])) for g in gradients]
    assert len(norms[0]) == len(norms[1])
    torch.testing.assert_close(norms[1], norms[0], rtol=1e-6, atol=1e-9)
