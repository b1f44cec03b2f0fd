"""Importing timm, which nothing needs but classification and comparisons."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch

from lightvit_mm.errors import UserError

__all__ = ['import_timm']


def import_timm() -> ModuleType:
    """Import timm from the environment or from the folder where tools/test.sh installs it.

    That folder is apart from the other packages because timm needs torchvision, and PyPI's
    torchvision cannot load its operators next to a CPU build of torch, which breaks mmdet. timm
    needs two of these operators to be defined, but never calls them.

    Raises:
        UserError: it cannot be imported.
    """
    if importlib.util.find_spec('timm') is None:
        sys.path.append(str(Path(sys.prefix) / 'timm'))
    try:
        try:
            return importlib.import_module('timm')
        except RuntimeError:
            library = torch.library.Library('torchvision', 'FRAGMENT')
            for operator in ('nms', 'qnms'):
                library.define(f'{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor')
            return importlib.import_module('timm')
    except ImportError as error:
        raise UserError(
            f'timm cannot be imported ({error}): pip install timm torchvision  (or pip install -e '
            '".[imagenet]" in the checkout; beside a CPU build of torch see docs/pretrain.md)'
        ) from error
