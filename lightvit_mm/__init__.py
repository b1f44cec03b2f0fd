"""Lightweight vision backbones for dense prediction on OpenMMLab.

Importing the package registers its backbones and necks and makes mmengine read checkpoints safely.
"""

from lightvit_mm import backbones, checkpoints, necks

__all__ = ['__version__', 'backbones', 'checkpoints', 'necks']
__version__ = '0.1.0'
