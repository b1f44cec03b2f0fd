"""The registered necks."""

from lightvit_mm.necks.efficientvit_fpn import EfficientViTFPN
from lightvit_mm.necks.ssdlite_neck import SSDLiteNeck

__all__ = ['EfficientViTFPN', 'SSDLiteNeck']
