"""The mmengine registries that the package adds its classes to.

Every module registers through this one. mmengine's root registries are the parents of those of
mmdet, mmseg and mmpretrain, so all of them find these classes by their bare names.
"""

from mmengine.registry import HOOKS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

__all__ = ['HOOKS', 'MODELS', 'OPTIM_WRAPPERS', 'OPTIM_WRAPPER_CONSTRUCTORS']
