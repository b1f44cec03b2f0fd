"""The published ImageNet weights: one record a file, with where it is, what it is and its licence.

The configs give these addresses, which a test holds. Nothing here fetches or reads a file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from lightvit_mm.checkpoints.download import NAMED_HASH
from lightvit_mm.checkpoints.timm_weights import SCHEME, full_name, timm_address
from lightvit_mm.errors import UserError

__all__ = ['WEIGHTS', 'Release', 'Weights', 'find_weights', 'named_weights']

Triple = tuple[float, float, float]
# Of pixels from 0 to 255.
IMAGENET_MEAN: Triple = (123.675, 116.28, 103.53)
IMAGENET_STD: Triple = (58.395, 57.12, 57.375)
NO_MEAN: Triple = (0.0, 0.0, 0.0)
TO_ONE: Triple = (255.0, 255.0, 255.0)


@dataclass(frozen=True)
class Release:
    """What the files of one publisher have in common.

    Attributes:
        source: who published them, as a repository or by its usual name.
        url: its page.
        licence: short name of the licence stated there.
        covers_weights: whether it is stated for the weights too, and not for the code alone.
        third_party: whether others than the paper's authors trained them.
        channels: order of the channels, ``'RGB'`` or ``'BGR'``.
        mean, std: of each channel, for pixels from 0 to 255.
        resize, crop: pixels of the shorter side, and of the square in its middle, at which top-1
            was measured.
        interpolation: of that resizing.
    """

    source: str
    url: str
    licence: str
    covers_weights: bool = False
    third_party: bool = False
    channels: str = 'RGB'
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    resize: int = 256
    crop: int = 224
    interpolation: str = 'bicubic'


@dataclass(frozen=True)
class Weights:
    """One published file of a backbone, trained on ImageNet-1k.

    Attributes:
        model: family and arch as in the names of our configs, e.g. ``'repvit_m1_1'``.
        tag: distinguishes the files of a model.
        address: for ``init_cfg``: https, or ``timm://``.
        layout: the layout that its loading reports.
        top1: accuracy in percent as published; None if its publisher states none.
        paper_top1: that of the paper, for third-party weights.
        release: what it has in common with the other files of its publisher.
    """

    model: str
    tag: str
    address: str
    layout: str
    top1: float | None
    release: Release
    paper_top1: float | None = None

    @property
    def name(self) -> str:
        """Model and tag, unique."""
        return f'{self.model}.{self.tag}'

    @property
    def url(self) -> str:
        """The https address, also of ``timm://``."""
        return timm_address(self.address) if self.address.startswith(SCHEME) else self.address

    @property
    def sha256(self) -> str | None:
        """The first digits of the file's SHA-256, where its name has them; downloads check it."""
        digits = NAMED_HASH.search(self.address)
        return digits[1] if digits else None

    @property
    def origin(self) -> str:
        """Source and licence, for the line that reports a loading."""
        covered = 'licence' if self.release.covers_weights else "code's licence"
        return f'{self.release.source}, {covered} {self.release.licence}'

    def __str__(self) -> str:
        """Name and accuracy, with the paper's where others trained them."""
        top1 = '' if self.top1 is None else f', top-1 {self.top1}'
        other = f" (third-party weights; the paper's top-1 {self.paper_top1})"
        return self.name + top1 + (other if self.release.third_party else '')


EASYCV = Release(
    'alibaba/EasyCV', 'https://github.com/alibaba/EasyCV', 'Apache-2.0', third_party=True
)
REPVIT = Release('THU-MIG/RepViT', 'https://github.com/THU-MIG/RepViT', 'Apache-2.0')
CREAM = Release('microsoft/Cream', 'https://github.com/microsoft/Cream', 'MIT')
APPLE_LICENCE = "Apple's own"
CVNETS = Release(
    'apple/ml-cvnets',
    'https://github.com/apple/ml-cvnets',
    APPLE_LICENCE,
    channels='BGR',
    mean=NO_MEAN,
    std=TO_ONE,
    resize=288,
    crop=256,
    interpolation='bilinear',
)
MMPRETRAIN = replace(
    CVNETS,
    source='open-mmlab/mmpretrain',
    url='https://github.com/open-mmlab/mmpretrain',
    licence='Apache-2.0',
)
# timm 1.0.31 states a licence for each set of weights. It reads images as RGB, and resizes to the
# size of the crop over 0.95 (RepViT), 0.875 (EfficientViT) or 0.9 (MobileViT), rounded down.
TIMM_REPVIT = Release(
    'timm',
    'https://github.com/huggingface/pytorch-image-models',
    'Apache-2.0',
    covers_weights=True,
    resize=235,
)
TIMM_EFFICIENTVIT = replace(TIMM_REPVIT, licence='MIT', resize=256)
TIMM_MOBILEVIT = replace(
    TIMM_REPVIT, licence=APPLE_LICENCE, mean=NO_MEAN, std=TO_ONE, resize=284, crop=256
)

ALIYUN = 'https://pai-vision-data-hz.oss-cn-zhangjiakou.aliyuncs.com/EasyCV/modelzoo/'
THU_MIG = 'https://github.com/THU-MIG/RepViT/releases/download/v1.0/'
MODEL_ZOO = 'https://github.com/xinyuliu-jeffrey/EfficientViT_Model_Zoo/releases/download/v1.0/'
APPLE = 'https://docs-assets.developer.apple.com/ml-research/models/cvnets/classification/'
OPENMMLAB = 'https://download.openmmlab.com/mmclassification/v0/mobilevit/'


def _edgevit() -> Iterator[Weights]:
    for arch, folder, top1, paper in (
        ('xxs', 'edgexxs', 75.18, 74.4),
        ('xs', 'edgexs', 77.624, 77.5),
        ('s', 'edges', 80.3, 81.0),
    ):
        address = f'{ALIYUN}classification/edgevit/{folder}/ClsEvaluator_neck_top1_best.pth'
        yield Weights(f'edgevit_{arch}', 'easycv', address, 'EasyCV', top1, EASYCV, paper)


def _mobilevit() -> Iterator[Weights]:
    for arch, size, digits, apple, mmpretrain, timm in (
        ('xxs', 'xxsmall', '77835605', 69.0, 69.02, 68.936),
        ('xs', 'xsmall', 'be39a6e7', 74.7, 74.75, 74.618),
        ('s', 'small', 'cb4f741c', 78.3, 78.25, 78.298),
    ):
        model = f'mobilevit_{arch}'
        yield Weights(model, 'cvnets', f'{APPLE}{model}.pt', 'Apple', apple, CVNETS)
        address = f'{OPENMMLAB}mobilevit-{size}_3rdparty_in1k_20221018-{digits}.pth'
        yield Weights(model, 'mmpretrain', address, 'mmpretrain', mmpretrain, MMPRETRAIN)
        address = f'timm://{model}.cvnets_in1k'
        yield Weights(model, 'timm_cvnets_in1k', address, 'timm', timm, TIMM_MOBILEVIT)


def _repvit() -> Iterator[Weights]:
    # Of each model the first is the one that the configs begin with, as the authors' do.
    for arch, epochs, top1, timm in (
        ('m0_6', 300, 74.1, None),
        ('m0_9', 300, 78.7, 78.652),
        ('m0_9', 450, 79.1, 79.058),
        ('m1_0', 300, 80.0, 80.152),
        ('m1_0', 450, 80.3, 80.43),
        ('m1_1', 300, 80.7, 80.826),
        ('m1_1', 450, 81.2, 81.314),
        ('m1_5', 300, 82.3, 82.382),
        ('m1_5', 450, 82.5, 82.52),
        ('m2_3', 450, 83.7, 83.746),
        ('m2_3', 300, 83.3, 83.524),
    ):
        model, tag = f'repvit_{arch}', f'distill_{epochs}e'
        yield Weights(model, tag, f'{THU_MIG}{model}_{tag}.pth', 'official', top1, REPVIT)
        if timm:
            tag = f'dist_{epochs}e_in1k'
            yield Weights(model, f'timm_{tag}', f'timm://{model}.{tag}', 'timm', timm, TIMM_REPVIT)
    # The authors' files of the paper's first version are gone; these are conversions of them.
    for arch, timm in (('m1', 78.542), ('m2', 80.468), ('m3', 81.494)):
        model, tag = f'repvit_{arch}', 'dist_in1k'
        address = f'timm://{model}.{tag}'
        yield Weights(model, f'timm_{tag}', address, 'timm legacy', timm, TIMM_REPVIT)


def _efficientvit() -> Iterator[Weights]:
    for number, top1 in enumerate((63.2, 68.4, 70.8, 73.4, 74.3, 77.1)):
        model, tag = f'efficientvit_m{number}', 'r224_in1k'
        yield Weights(model, 'cream', f'{MODEL_ZOO}{model}.pth', 'official', top1, CREAM)
        address = f'timm://{model}.{tag}'
        yield Weights(model, f'timm_{tag}', address, 'timm', None, TIMM_EFFICIENTVIT)


WEIGHTS = (*_edgevit(), *_mobilevit(), *_repvit(), *_efficientvit())


def named_weights(name: str) -> Weights:
    """The record with a name.

    Raises:
        UserError: there is none; the message lists near ones.
    """
    names = {weights.name: weights for weights in WEIGHTS}
    if name not in names:
        near = difflib.get_close_matches(name, names, 6, 0.4) or names
        raise UserError(f'no weights are called {name!r}; there are {", ".join(near)}')
    return names[name]


def find_weights(address: str) -> Weights | None:
    """The record of an address as in ``init_cfg``; None if it is not among the published ones.

    Raises:
        CheckpointError: a malformed ``timm://`` name.
    """
    if address.startswith(SCHEME):
        address = SCHEME + full_name(address)
    return next((weights for weights in WEIGHTS if weights.address == address), None)
