"""ImageNet classification, from which the weights of backbones come.

timm, of the extra ``[imagenet]``, reads the images and has the augmentations; it is imported where
it is used.
"""

from lightvit_mm.classification import clipping, metric, samplers, schedule
from lightvit_mm.classification.classifier import ImageClassifier
from lightvit_mm.classification.data import ClassFolders
from lightvit_mm.classification.head import ClassifierHead

__all__ = [
    'ClassFolders',
    'ClassifierHead',
    'ImageClassifier',
    'clipping',
    'metric',
    'samplers',
    'schedule',
]
