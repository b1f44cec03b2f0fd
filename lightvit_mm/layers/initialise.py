"""How the transformers among the papers start their linear layers."""

from torch import nn


def init_linear(module: nn.Module) -> None:
    """Truncated normal weights of deviation 0.02, biases of 0; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
