"""The backbones to benchmark, by name or from a config."""

from __future__ import annotations

import copy
import fnmatch
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mmengine.registry import MODELS, init_default_scope
from torch import nn

from lightvit_mm.backbones.families import FAMILIES
from lightvit_mm.engine.configs import load_config
from lightvit_mm.errors import UserError


@dataclass(frozen=True)
class Subject:
    """A backbone to benchmark.

    Attributes:
        name: its name in tables.
        build: builds it with random weights.
    """

    name: str
    build: Callable[[], nn.Module]


def variants() -> dict[str, Subject]:
    """Every variant of every family by its name in the configs, e.g. ``repvit_m1_1``."""
    return {
        f'{name}_{arch}': Subject(f'{name}_{arch}', functools.partial(family.backbone, arch=arch))
        for name, family in FAMILIES.items()
        for arch in family.backbone.arch_settings
    }


def find_subjects(names: Iterable[str]) -> list[Subject]:
    """Look up backbones by name, shell-style pattern (``repvit_*``) or config file (``*.py``).

    Raises:
        UserError: a name matches nothing; the message lists the choices.
        FileNotFoundError: a config file does not exist.
    """
    known = variants()
    subjects: dict[str, Subject] = {}
    for name in names:
        if name.endswith('.py'):
            subjects[name] = _from_config(name)
            continue
        found = fnmatch.filter(known, name)
        if not found:
            raise UserError(
                f'{name} is neither a backbone nor a config file (.py); the backbones are '
                + ', '.join(known)
            )
        subjects.update((each, known[each]) for each in found)
    return list(subjects.values())


def _from_config(file: str) -> Subject:
    config = load_config(file)
    if 'backbone' not in config.get('model', {}):
        raise UserError(f'{file} has no model.backbone to measure')

    def build() -> nn.Module:
        init_default_scope(config.get('default_scope', 'mmengine'))
        return MODELS.build({**copy.deepcopy(config.model.backbone), 'init_cfg': None})

    return Subject(Path(file).stem, build)
