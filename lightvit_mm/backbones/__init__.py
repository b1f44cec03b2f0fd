"""The registered backbones, one file a paper."""

from lightvit_mm.backbones.edgevit import EdgeViT
from lightvit_mm.backbones.pyramid import PyramidBackbone
from lightvit_mm.backbones.shuffle_swin import ShuffleSwin
from lightvit_mm.backbones.shuffle_vit import ShuffleDeiT, ShuffleT2TViT

__all__ = ['EdgeViT', 'PyramidBackbone', 'ShuffleDeiT', 'ShuffleSwin', 'ShuffleT2TViT']
