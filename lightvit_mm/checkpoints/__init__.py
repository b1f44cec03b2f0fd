"""Reading published weights: safe files, every key layout, no tensor silently left out."""

from mmengine.runner import CheckpointLoader

from lightvit_mm.checkpoints.download import CheckpointError
from lightvit_mm.checkpoints.layout import Layout, WeightsError
from lightvit_mm.checkpoints.named import register_names
from lightvit_mm.checkpoints.reading import read_checkpoint, register_loaders
from lightvit_mm.checkpoints.timm_weights import SCHEME, load_timm_weights

__all__ = ['CheckpointError', 'Layout', 'WeightsError', 'read_checkpoint', 'register_loaders']

register_loaders()
register_names()
CheckpointLoader.register_scheme(SCHEME, load_timm_weights, force=True)
