"""The registered backbones, one file a paper."""

from lightvit_mm.backbones.edgevit import EdgeViT
from lightvit_mm.backbones.efficientvit import EfficientViT
from lightvit_mm.backbones.mobilevit import MobileViT
from lightvit_mm.backbones.pyramid import PyramidBackbone
from lightvit_mm.backbones.repvit import RepViT
from lightvit_mm.backbones.shuffle_swin import ShuffleSwin
from lightvit_mm.backbones.shuffle_vit import ShuffleDeiT, ShuffleT2TViT

__all__ = [
    'EdgeViT',
    'EfficientViT',
    'MobileViT',
    'PyramidBackbone',
    'RepViT',
    'ShuffleDeiT',
    'ShuffleSwin',
    'ShuffleT2TViT',
]
