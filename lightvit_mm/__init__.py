"""Lightweight vision backbones for dense prediction on OpenMMLab.

Importing the package registers its backbones and makes mmengine read checkpoints safely.
"""

from lightvit_mm import backbones, checkpoints

__all__ = ['__version__', 'backbones', 'checkpoints']
__version__ = '0.1.0'
