"""Key layouts of DeiT and T2T-ViT, plain and with channel shuffle.

The official layout of DeiT (facebookresearch/deit) is also timm's. The forks by the author of the
channel shuffle use the same names for tensors of other shapes. Distilled DeiTs do not fit these
networks: their ``dist_token`` is an unexpected name.
"""

from collections.abc import Mapping, Sequence

import torch

from lightvit_mm.checkpoints.layout import Layout, Tensors
from lightvit_mm.layers.position import resize_position

__all__ = ['deit_layouts', 't2t_vit_layouts']

CLASSIFIER = r'norm\.|head\.'


def _block_names(depths: Sequence[int], shuffle: bool) -> tuple[tuple[str, str], ...]:
    """Renames of consecutively numbered blocks to the blocks of stages."""
    places = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    inside = 'block.' if shuffle else ''
    return tuple(
        (rf'^blocks\.{number}\.', f'stages.{stage}.blocks.{block}.{inside}')
        for number, (stage, block) in enumerate(places)
    )


def _resize_to_expected(tensors: Tensors, expected: Mapping[str, torch.Tensor]) -> Tensors:
    """Interpolate a position embedding that was learnt for another image size."""
    name = 'stem.pos_embed'
    given, wanted = tensors.get(name), expected.get(name)
    if not isinstance(given, torch.Tensor) or wanted is None or given.ndim != 3:
        return tensors
    sides = [round((position.shape[1] - 1) ** 0.5) for position in (given, wanted)]
    if given.shape[1] != 1 + sides[0] ** 2:  # not a square; `fit` reports it
        return tensors
    return {**tensors, name: resize_position(given.float(), sides[1], sides[1])}


def deit_layouts(depths: Sequence[int], shuffle: bool) -> tuple[Layout, ...]:
    """The layouts of a DeiT whose stages have ``depths`` blocks."""
    return (
        Layout(
            name="author's fork" if shuffle else 'official',
            renames=(
                (r'^patch_embed\.', 'stem.'),
                (r'^(cls_token|pos_embed)$', r'stem.\1'),
                *_block_names(depths, shuffle),
            ),
            dropped=CLASSIFIER,
            convert=_resize_to_expected,
        ),
    )


def t2t_vit_layouts(depths: Sequence[int], shuffle: bool) -> tuple[Layout, ...]:
    """The layouts of a T2T-ViT whose stages have ``depths`` blocks; its positions are fixed."""
    return (
        Layout(
            name="author's fork" if shuffle else 'official',
            renames=(
                (r'^tokens_to_token\.', 'stem.'),
                (r'^cls_token$', 'stem.cls_token'),
                (r'^(stem\.attention\d)\.w$', r'\1.random_features'),
                (r'^(stem\.attention\d)\.mlp\.0\.', r'\1.mlp.fc1.'),
                (r'^(stem\.attention\d)\.mlp\.2\.', r'\1.mlp.fc2.'),
                *_block_names(depths, shuffle),
            ),
            dropped=rf'{CLASSIFIER}|pos_embed$',
        ),
    )
