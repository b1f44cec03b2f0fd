"""The list of families: what the configs call them, their classes and their papers."""

from __future__ import annotations

from typing import NamedTuple

from lightvit_mm.backbones.edgevit import EdgeViT
from lightvit_mm.backbones.efficientvit import EfficientViT
from lightvit_mm.backbones.mobilevit import MobileViT
from lightvit_mm.backbones.pyramid import PyramidBackbone
from lightvit_mm.backbones.repvit import RepViT
from lightvit_mm.backbones.shuffle_swin import ShuffleSwin
from lightvit_mm.backbones.shuffle_vit import ShuffleDeiT, ShuffleT2TViT

__all__ = ['FAMILIES', 'Family']


class Family(NamedTuple):
    """One registered backbone.

    Attributes:
        backbone: its class.
        name: its name in tables.
        paper: a short title of the paper.
        url: address of the paper.
    """

    backbone: type[PyramidBackbone]
    name: str
    paper: str
    url: str


CHANNEL_SHUFFLE = ("Plug n' Play", 'https://arxiv.org/abs/2310.05642')
# The keys are the names in our configs: retinanet_<family>_<arch>_coco.py.
FAMILIES = {
    'edgevit': Family(EdgeViT, 'EdgeViT', 'EdgeViTs', 'https://arxiv.org/abs/2205.03436'),
    'mobilevit': Family(MobileViT, 'MobileViT', 'MobileViT', 'https://arxiv.org/abs/2110.02178'),
    'repvit': Family(RepViT, 'RepViT', 'RepViT', 'https://arxiv.org/abs/2307.09283'),
    'efficientvit': Family(
        EfficientViT,
        'EfficientViT (Microsoft)',
        'EfficientViT',
        'https://arxiv.org/abs/2305.07027',
    ),
    'shuffle_swin': Family(ShuffleSwin, 'Channel-shuffle Swin', *CHANNEL_SHUFFLE),
    'shuffle_deit': Family(ShuffleDeiT, 'Channel-shuffle DeiT', *CHANNEL_SHUFFLE),
    'shuffle_t2t_vit': Family(ShuffleT2TViT, 'Channel-shuffle T2T-ViT', *CHANNEL_SHUFFLE),
}
