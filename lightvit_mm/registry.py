"""The one place that names registries.

mmengine's root registries are the parents of those of mmdet, mmseg and mmpretrain, so what is
registered here is found by its bare name from any of them.
"""

from mmengine.registry import HOOKS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS

__all__ = ['HOOKS', 'MODELS', 'OPTIM_WRAPPER_CONSTRUCTORS']
