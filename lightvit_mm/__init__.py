"""Lightweight vision backbones for dense prediction on OpenMMLab.

Importing the package registers its backbones, necks, hooks and optimizer constructor, and makes
mmengine read checkpoints safely, write them whole, and find the package's configs.
"""

import sys
from typing import TYPE_CHECKING, Any

from lightvit_mm.errors import stack_errors

if TYPE_CHECKING:
    from lightvit_mm.engine.predictor import Predictor

__all__ = [
    'Predictor',
    '__version__',
    'backbones',
    'checkpoints',
    'classification',
    'compile_backbone',
    'create_backbone',
    'hooks',
    'layer_decay',
    'list_archs',
    'list_weights',
    'necks',
]
__version__ = '0.1.0'
COMMANDS = {'lightvit_mm', 'lightvit_mm.doctor'}


def _is_command() -> bool:
    """Whether a command imports the package, which must answer at once and on a broken stack.

    Then the command imports the rest where it needs it. Python 3.9 has no orig_argv.
    """
    program = sys.argv[0] if sys.argv else ''
    if program == '-m':  # while Python looks for the module
        return bool(COMMANDS.intersection(getattr(sys, 'orig_argv', COMMANDS)))
    return program.replace('\\', '/').rpartition('/')[2].removesuffix('.exe') == 'lightvit-mm'


if not _is_command():
    with stack_errors():
        from lightvit_mm import backbones, checkpoints, classification, necks
        from lightvit_mm.backbones.create import create_backbone, list_archs, list_weights
        from lightvit_mm.engine import compile_backbone, hooks, layer_decay
        from lightvit_mm.engine.scope import register_scope
        from lightvit_mm.engine.whole_files import register_whole_files
    register_whole_files()
    register_scope()


def __getattr__(name: str) -> Any:
    """Import what needs more than a backbone does when it is first used."""
    if name != 'Predictor':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    with stack_errors():
        from lightvit_mm.engine.predictor import Predictor
    return Predictor
