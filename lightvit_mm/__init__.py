"""Lightweight vision backbones for dense prediction on OpenMMLab.

Importing the package registers its backbones, necks, optimizer constructor and hook, and makes
mmengine read checkpoints safely.
"""

from lightvit_mm import backbones, checkpoints, necks
from lightvit_mm.engine import compile_backbone, layer_decay

__all__ = ['__version__', 'backbones', 'checkpoints', 'compile_backbone', 'layer_decay', 'necks']
__version__ = '0.1.0'
