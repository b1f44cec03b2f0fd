"""Lightweight vision backbones for dense prediction on OpenMMLab.

Importing the package registers its backbones, necks, hooks and optimizer constructor, and makes
mmengine read checkpoints safely and write them whole.
"""

import sys

from lightvit_mm.errors import stack_errors

__all__ = [
    '__version__',
    'backbones',
    'checkpoints',
    'compile_backbone',
    'create_backbone',
    'hooks',
    'layer_decay',
    'list_archs',
    'list_weights',
    'necks',
]
__version__ = '0.1.0'
DOCTOR = 'lightvit_mm.doctor'

# python -m lightvit_mm.doctor imports the package first, but must run even where that fails, also
# on Python 3.9, which has no orig_argv.
if sys.argv[:1] != ['-m'] or DOCTOR not in getattr(sys, 'orig_argv', [DOCTOR]):
    with stack_errors():
        from lightvit_mm import backbones, checkpoints, necks
        from lightvit_mm.backbones.create import create_backbone, list_archs, list_weights
        from lightvit_mm.engine import compile_backbone, hooks, layer_decay
        from lightvit_mm.engine.whole_files import register_whole_files
    register_whole_files()
