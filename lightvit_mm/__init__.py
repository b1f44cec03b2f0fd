"""Lightweight vision backbones for dense prediction on OpenMMLab.

Importing the package registers its backbones, necks, hooks and optimizer constructor, and makes
mmengine read checkpoints safely and write them whole.
"""

from lightvit_mm import backbones, checkpoints, necks
from lightvit_mm.engine import compile_backbone, hooks, layer_decay
from lightvit_mm.engine.whole_files import register_whole_files

__all__ = [
    '__version__',
    'backbones',
    'checkpoints',
    'compile_backbone',
    'hooks',
    'layer_decay',
    'necks',
]
__version__ = '0.1.0'

register_whole_files()
