"""timm, from the folder in which tools/test.sh has put it.

It stands aside because a torchvision that can't load its operators, as PyPI's beside a CPU torch,
breaks other packages. timm needs two of those operators to be named, not to work.
"""

import contextlib
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(sys.prefix) / 'timm'


def import_timm() -> ModuleType:
    """timm, or a skip with the reason."""
    if FOLDER.is_dir() and str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    library = torch.library.Library('torchvision', 'FRAGMENT')
    for operator in ('nms', 'qnms'):
        with contextlib.suppress(RuntimeError):
            library.define(f'{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor')
    try:
        return importlib.import_module('timm')
    except ImportError as error:
        pytest.skip(f'timm cannot be imported ({error}); tools/test.sh puts it into {FOLDER}')
