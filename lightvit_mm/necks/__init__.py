"""The registered necks."""

from lightvit_mm.necks.efficientvit_fpn import EfficientViTFPN

__all__ = ['EfficientViTFPN']
