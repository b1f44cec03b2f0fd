"""timm's weights, made by timm itself, in our backbones: every tensor taken, the same outputs."""

import pytest
import timm_reference
import torch

# name in timm, class and arch here, how many of the finest levels are comparable
MODELS = {
    **{f'repvit_m{i}': ('RepViT', f'm{i}', 4) for i in (1, 2, 3)},
    **{f'repvit_{arch}': ('RepViT', arch, 4) for arch in ('m0_9', 'm1_0', 'm1_1', 'm1_5', 'm2_3')},
    # At 224 timm's last stage works in a window of 4 x 4, ours in one of 7 x 7 as in detection.
    **{f'efficientvit_m{i}': ('EfficientViT', f'm{i}', 2) for i in range(6)},
    **{f'mobilevit_{arch}': ('MobileViT', arch, 4) for arch in ('xxs', 'xs', 's')},
    'swin_tiny_patch4_window7_224': ('ShuffleSwin', 'tiny', 4),
    'deit_tiny_patch16_224': ('ShuffleDeiT', 'tiny', 4),
}
OPTIONS = {
    'MobileViT': {'expand_last': True},
    'ShuffleSwin': {'shuffle': False, 'out_norm': False},
    'ShuffleDeiT': {'shuffle': False},
}


@pytest.fixture(scope='module')
def timm():
    return timm_reference.import_timm()


@torch.no_grad()
def randomised(model: torch.nn.Module) -> torch.nn.Module:
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith('running_var'):
            tensor.uniform_(0.5, 2)
        elif name.endswith(('running_mean', 'bias')) or tensor.ndim < 1:
            tensor.normal_(std=0.1)
        elif tensor.ndim == 1:
            tensor.normal_(1, 0.1)
        else:
            tensor.normal_(std=0.7 / tensor[0].numel() ** 0.5)
    return model.eval()
