"""Key layouts of Swin Transformers, plain and with channel shuffle.

The official layout is that of microsoft/Swin-Transformer, whose detection code adds ``norm0`` to
``norm3``. There, in mmdet and in mmpretrain, a stage ends with the downsampling; in timm, as here,
it begins with it.
"""

from collections.abc import Mapping

import torch

from lightvit_mm.checkpoints.layout import Layout, Tensors

__all__ = ['LAYOUTS', 'SHUFFLED_LAYOUTS']

# In descending order, so that no stage is renamed twice.
LAST_TO_FIRST = (2, 1, 0)
DROPPED = r'head\.|norm\.|layers\.\d+\.blocks\.\d+\.(attn_mask|attn\.relative_position_index)$'
NAMES = (
    (r'^patch_embed\.', 'stem.'),
    (r'^layers\.', 'stages.'),
    (r'^norm(\d)\.', r'out_norms.\1.'),
)
DOWNSAMPLE_IS_LAST = tuple(
    (rf'^stages\.{i}\.downsample\.', f'stages.{i + 1}.downsample.') for i in LAST_TO_FIRST
)


def _merge_in_our_order(tensors: Tensors, expected: Mapping[str, torch.Tensor]) -> Tensors:
    """Order the inputs of patch mergings by token, then by channel, as the official code does.

    nn.Unfold, which mmdet uses, orders them by channel, then by token, row by row.
    """
    sorted_tensors = {}
    for name, tensor in tensors.items():
        if (
            '.downsample.' in name
            and isinstance(tensor, torch.Tensor)
            and tensor.shape[-1] % 4 == 0
        ):
            tensor = tensor.unflatten(-1, (-1, 2, 2)).transpose(-1, -2).movedim(-3, -1).flatten(-3)
        sorted_tensors[name] = tensor
    return sorted_tensors


LAYOUTS = (
    Layout(name='official', renames=(*NAMES, *DOWNSAMPLE_IS_LAST), dropped=DROPPED),
    Layout(name='timm', renames=NAMES, dropped=DROPPED),
    Layout(
        name='mmdet',
        renames=(
            (r'^patch_embed\.projection\.', 'stem.proj.'),
            *NAMES,
            *DOWNSAMPLE_IS_LAST,
            (r'\.attn\.w_msa\.', '.attn.'),
            (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
            (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
        ),
        dropped=r'stages\.\d+\.blocks\.\d+\.attn\.w_msa\.relative_position_index$',
        convert=_merge_in_our_order,
    ),
)
SHUFFLED_LAYOUTS = (
    Layout(
        name="author's fork",
        renames=(
            *NAMES,
            *DOWNSAMPLE_IS_LAST,
            (r'^(stages\.\d+\.blocks\.\d+)\.', r'\1.block.'),
            (r'\.downsample\.(norm|reduction)_1\.', r'.downsample.attended.\1.'),
            (r'\.downsample\.(norm|reduction)_2\.', r'.downsample.idle.\1.'),
        ),
        dropped=DROPPED,
    ),
)
