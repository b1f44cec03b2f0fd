"""What two or more families use."""

from lightvit_mm.layers.checkpointing import checkpoint
from lightvit_mm.layers.padding import pad_to_multiple

__all__ = ['checkpoint', 'pad_to_multiple']
