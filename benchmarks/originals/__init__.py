"""The slow reference: the originals' forward passes, written out module for module.

What these do is what the authors' code does, in its order, memory layout and number of operations:
contiguous (N, C, H, W) maps, tokens made by flatten and transpose, attention by two matrix products
and a softmax. Names of parameters are those of the releases, so that one state dict serves both.
They exist to be compared with, in value (test_originals.py) and in speed (compare_speed.py).

Written from the architecture tables and key layouts; sources as in the family files of the package:
saic-fi/edgevit at df3d070, THU-MIG/RepViT at 298f420, microsoft/Cream at 4a13c40 (EfficientViT),
timm 1.0.31 (MobileViT, whose attention is scaled_dot_product_attention already).
"""

from originals.common import fuse
from originals.edgevit import EdgeViT
from originals.efficientvit import EfficientViT
from originals.mobilevit import MobileViT
from originals.repvit import RepViT

__all__ = ['FAMILIES', 'fuse']

FAMILIES = {cls.__name__: cls for cls in (EdgeViT, RepViT, EfficientViT, MobileViT)}
