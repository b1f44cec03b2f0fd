"""Backbones and their published weights by name, for any PyTorch program."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch

from lightvit_mm.backbones.families import FAMILIES
from lightvit_mm.backbones.pyramid import PyramidBackbone
from lightvit_mm.checkpoints.weights import WEIGHTS, Weights, named_weights
from lightvit_mm.errors import UserError
from lightvit_mm.measure.complexity import count_parameters

__all__ = ['Architecture', 'create_backbone', 'list_archs', 'list_weights']


class Architecture(NamedTuple):
    """One variant of a backbone.

    Attributes:
        name: family and arch, as in the names of our configs, e.g. ``'repvit_m1_1'``.
        type: its registered class, for ``type=`` in a config.
        arch: its ``arch=``.
        strides: of the levels, from fine to coarse.
        channels: of each level.
        parameters: in the training form, without a classifier.
    """

    name: str
    type: str
    arch: str
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    parameters: int


# By the names that the configs have.
BACKBONES = {
    f'{family}_{arch}': (described.backbone, arch)
    for family, described in FAMILIES.items()
    for arch in described.backbone.arch_settings
}


def list_archs(pattern: str = '*') -> list[Architecture]:
    """The backbones whose names match a shell-style pattern, e.g. ``'repvit*'``.

    Raises:
        UserError: none matches.
    """
    found = []
    for name in _matching(pattern, BACKBONES):
        backbone, arch = BACKBONES[name]
        with torch.device('meta'):  # shapes without values
            model = backbone(arch)
        size = count_parameters(model)
        strides, channels = model.out_strides, model.out_channels
        found.append(Architecture(name, backbone.__name__, arch, strides, channels, size))
    return found


def list_weights(pattern: str = '*') -> list[Weights]:
    """The published weights of the backbones that match a shell-style pattern.

    Args:
        pattern: of the name of a backbone (``'repvit_m1_1'``) or of weights
            (``'repvit_m1_1.distill_*'``).

    Returns:
        Their records; of each backbone, the first are those that our configs begin with. An empty
        list if none were published for any of these backbones.

    Raises:
        UserError: the pattern matches neither a backbone nor weights.
    """
    names = _matching(pattern, [*BACKBONES, *(weights.name for weights in WEIGHTS)])
    return [weights for weights in WEIGHTS if weights.model in names or weights.name in names]


def create_backbone(name: str, pretrained: bool | str = False, **arguments: Any) -> PyramidBackbone:
    """Build a backbone, and load its published weights, completely or not at all.

    Args:
        name: of a backbone, e.g. ``'edgevit_s'``, or of weights, e.g.
            ``'repvit_m1_1.distill_450e'``; see `list_archs` and `list_weights`.
        pretrained: False for random weights; True for those named, or else the first of
            `list_weights`; or a file or address with weights in any published layout. Downloads
            stay in torch's hub cache.
        arguments: those of its class, such as ``out_indices``, ``frozen_stages`` or ``deploy``;
            see `PyramidBackbone`.

    Returns:
        The backbone, in training mode like any new module. It takes images (N, 3, H, W), any H and
        W, and returns a tuple of maps (N, out_channels[i], ceil(H / s), ceil(W / s)) with
        s = out_strides[i]. The record of its weights says which channels, mean and standard
        deviation they expect.

    Raises:
        UserError: an unknown name, or no weights were published.
        CheckpointError: the weights cannot be fetched or read.
        WeightsError: they do not fit.
        TypeError, ValueError: see `PyramidBackbone`.
    """
    model, _, tag = name.partition('.')
    if model not in BACKBONES:
        raise UserError(_unknown(name, BACKBONES))
    if tag:
        named_weights(name)
    if pretrained is True:
        published = list_weights(name)
        if not published:
            raise UserError(
                f'no weights of {model} were published; give pretrained=FILE, or leave it out for '
                'random weights'
            )
        pretrained = published[0].address
    backbone, arch = BACKBONES[model]
    built = backbone(arch, **arguments)
    if pretrained:
        built.load_weights(str(pretrained))
    return built


def _matching(pattern: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise UserError(_unknown(pattern, names))
    return found


def _unknown(name: str, names: Iterable[str]) -> str:
    names = list(names)
    near = difflib.get_close_matches(name, names, 6, 0.4) or names
    return f'no backbone is called {name!r}; there are {", ".join(near)}'
