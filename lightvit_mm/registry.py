"""The registries that lightvit_mm's own modules are registered in.

They are mmengine's root registries, the parents of those of mmdet, mmseg and mmpretrain, so a bare
name is found from any of these.
"""

from mmengine.registry import HOOKS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS

__all__ = ['HOOKS', 'MODELS', 'OPTIM_WRAPPER_CONSTRUCTORS']
