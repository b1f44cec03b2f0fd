"""Lightweight vision backbones for dense prediction on OpenMMLab.

Importing the package registers its backbones, necks and optimizer constructor, and makes mmengine
read checkpoints safely.
"""

from lightvit_mm import backbones, checkpoints, necks
from lightvit_mm.engine import layer_decay

__all__ = ['__version__', 'backbones', 'checkpoints', 'layer_decay', 'necks']
__version__ = '0.1.0'
