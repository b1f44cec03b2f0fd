"""DeiT and T2T-ViT as their authors name the tensors, of one of our networks."""

import re

import torch
from torch import nn

from lightvit_mm.backbones import ShuffleT2TViT


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a released file of the network that ``model`` is; the head is another's."""
    places = [(i, j) for i, depth in enumerate(model.arch['depths']) for j in range(depth)]
    tensors = {'norm.weight': torch.ones(3), 'norm.bias': torch.ones(3), 'head.bias': torch.ones(9)}
    for name, value in model.state_dict().items():
        if name.startswith('levels.'):
            continue
        for number, (i, j) in enumerate(places):
            name = name.replace(f'stages.{i}.blocks.{j}.', f'blocks.{number}.')
        name = name.replace('.block.', '.').replace('stem.proj.', 'patch_embed.proj.')
        name = re.sub(r'stem\.(cls_token|pos_embed)', r'\1', name)
        name = re.sub(r'stem\.(attention\d)\.mlp\.fc1', r'stem.\1.mlp.0', name)
        name = re.sub(r'stem\.(attention\d)\.mlp\.fc2', r'stem.\1.mlp.2', name)
        tensors[name.replace('random_features', 'w').replace('stem.', 'tokens_to_token.')] = value
    if isinstance(model, ShuffleT2TViT):
        tensors['pos_embed'] = torch.zeros(1, 197, 3)  # a fixed table: made anew
    return tensors
