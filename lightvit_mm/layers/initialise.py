"""The initialisation that the transformer papers share."""

from torch import nn


def init_linear(module: nn.Module) -> None:
    """Truncated normal weights with standard deviation 0.02 and zero biases; for `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
