"""The published configs."""

import copy
import functools
from pathlib import Path

from mmengine.config import Config

from lightvit_mm.engine.configs import load_config


def load_once(file: Path) -> Config:
    """What `load_config` makes of a config, which it reads once in a process."""
    return copy.deepcopy(_loaded(file))


@functools.cache
def _loaded(file: Path) -> Config:
    return load_config(str(file))
