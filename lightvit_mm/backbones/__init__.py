"""The registered backbones, one file a paper."""

from lightvit_mm.backbones.edgevit import EdgeViT
from lightvit_mm.backbones.pyramid import PyramidBackbone
from lightvit_mm.backbones.repvit import RepViT

__all__ = ['EdgeViT', 'PyramidBackbone', 'RepViT']
