"""What two or more families use."""

from lightvit_mm.layers.checkpointing import checkpoint
from lightvit_mm.layers.conv_norm import ConvNorm
from lightvit_mm.layers.padding import pad_to_multiple
from lightvit_mm.layers.squeeze_excite import SqueezeExcite

__all__ = ['ConvNorm', 'SqueezeExcite', 'checkpoint', 'pad_to_multiple']
