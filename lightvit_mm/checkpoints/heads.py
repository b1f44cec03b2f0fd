"""Key layouts of the heads of published classifiers, beside those of their backbones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from lightvit_mm.checkpoints.layout import OURS, Layout, Match, Tensors, find_match

__all__ = ['match_head']

NORM_EPS = 1e-5  # of BatchNorm
NORM = ('weight', 'bias', 'running_mean', 'running_var')


def match_head(weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> Match:
    """Find the head of a classifier in the weights of the whole.

    Args:
        weights: names to tensors, of a classifier in any published layout.
        expected: the state dict of a `ClassifierHead`.

    Returns:
        The head by our names. A distilled classifier has two linear layers, whose outputs are
        averaged; for a head with one, they are folded into one, which computes the same.
    """
    return find_match(weights, expected, LAYOUTS)


def _fit_number_of_layers(tensors: Tensors, expected: Mapping[str, torch.Tensor]) -> Tensors:
    """Fold two linear layers into one, and add the norm that folding or fusing has removed."""
    if 'fc_dist.weight' in tensors and 'fc_dist.weight' not in expected:
        tensors = _fold_two(tensors)
    if 'norm.running_mean' in expected and 'fc.weight' in tensors and 'norm.weight' not in tensors:
        channels = torch.ones_like(expected['norm.weight'])
        identity = ((1 + NORM_EPS) ** 0.5 * channels, 0 * channels, 0 * channels, channels)
        tensors = {**tensors, **{f'norm.{k}': v for k, v in zip(NORM, identity, strict=True)}}
    return tensors


def _fold_two(tensors: Tensors) -> Tensors:
    layers = [_as_linear(tensors, suffix) for suffix in ('', '_dist')]
    if None in layers:  # something is missing, which is reported by its name
        return tensors
    (weight, bias), (other_weight, other_bias) = (layer for layer in layers if layer)
    weight, bias = (weight + other_weight) / 2, (bias + other_bias) / 2
    dtype = tensors['fc.weight'].dtype
    return {'fc.weight': weight.to(dtype), 'fc.bias': bias.to(dtype)}


def _as_linear(tensors: Tensors, suffix: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Weight and bias of a norm in evaluation and the linear layer after it."""
    names = [*(f'norm{suffix}.{name}' for name in NORM), f'fc{suffix}.weight', f'fc{suffix}.bias']
    if not all(isinstance(tensors.get(name), torch.Tensor) for name in names):
        return None
    scale, shift, mean, variance, weight, bias = (tensors[name].double() for name in names)
    scale = scale / (variance + NORM_EPS).sqrt()
    return weight * scale, bias + weight @ (shift - mean * scale)


def _norm_and_linear(name: str, head: str) -> Layout:
    """RepViT's and EfficientViT's: ``<head>.bn`` and ``<head>.l`` or ``<head>.linear``."""
    return Layout(
        name=name,
        renames=(
            (rf'^{head}(_dist)?\.bn\.', r'norm\1.'),
            (rf'^{head}(_dist)?\.(?:l|linear)\.', r'fc\1.'),
        ),
        dropped=rf'(?!{head}(_dist)?\.(bn|l|linear)\.)',
        convert=_fit_number_of_layers,
    )


# ml-cvnets, mmpretrain, EasyCV and timm name the linear layer; the others are it.
LINEAR = r'(?:head\.fc_cls|head\.fc|classifier\.fc|classifier|head)\.(?=(?:weight|bias)$)'
LAYOUTS = (
    replace(OURS, renames=((r'^head\.', ''),), dropped=r'(?!head\.(norm|fc)(_dist)?\.)'),
    _norm_and_linear('RepViT', r'classifier\.classifier'),
    _norm_and_linear("timm's RepViT", r'head\.head'),
    _norm_and_linear('EfficientViT', 'head'),
    Layout(
        name='linear',
        renames=((f'^{LINEAR}', 'fc.'),),
        dropped=f'(?!{LINEAR})',
        convert=_fit_number_of_layers,
    ),
    Layout(
        name='norm and linear',
        renames=((f'^{LINEAR}', 'fc.'),),
        dropped=rf'(?!{LINEAR}|norm\.(weight|bias)$)',
    ),
)
