"""Reading published weights: safe files, every key layout, nothing left out in silence."""

from lightvit_mm.checkpoints.layout import Layout, WeightsError
from lightvit_mm.checkpoints.reading import CheckpointError, read_checkpoint, register_loaders

__all__ = ['CheckpointError', 'Layout', 'WeightsError', 'read_checkpoint', 'register_loaders']

register_loaders()
