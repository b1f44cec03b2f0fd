"""timm for the tests that compare with it."""

from types import ModuleType

import pytest
import torch

from lightvit_mm import timm_import
from lightvit_mm.errors import UserError


def import_timm() -> ModuleType:
    """timm, or a skip with the reason."""
    try:
        return timm_import.import_timm()
    except UserError as error:
        pytest.skip(f'{error}; tools/test.sh puts it where the tests find it')


@torch.no_grad()
def randomise(model: torch.nn.Module) -> None:
    """Give a model weights that hide no mistake, of usual sizes."""
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith('running_var'):
            tensor.uniform_(0.5, 2)
        elif name.endswith(('running_mean', 'bias')) or 'attention_biases' in name:
            tensor.normal_(std=0.1)
        elif tensor.ndim <= 1:
            tensor.normal_(1, 0.1)
        else:
            tensor.normal_(std=0.7 / tensor[0].numel() ** 0.5)
