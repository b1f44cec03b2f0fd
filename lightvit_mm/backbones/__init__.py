"""The registered backbones, one file a paper."""

from lightvit_mm.backbones.edgevit import EdgeViT
from lightvit_mm.backbones.efficientvit import EfficientViT
from lightvit_mm.backbones.mobilevit import MobileViT
from lightvit_mm.backbones.pyramid import PyramidBackbone
from lightvit_mm.backbones.repvit import RepViT

__all__ = ['EdgeViT', 'EfficientViT', 'MobileViT', 'PyramidBackbone', 'RepViT']
