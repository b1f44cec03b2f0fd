"""The one place that names a registry.

mmengine's root registry is the parent of those of mmdet, mmseg and mmpretrain, so what is
registered here is found by its bare name from any of them.
"""

from mmengine.registry import MODELS

__all__ = ['MODELS']
