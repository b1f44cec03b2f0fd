"""The backbones in Detectron2: importing this module registers them in its BACKBONE_REGISTRY.

Levels are named by stride, as in Detectron2's ResNet: ``res2`` is stride 4, ``res5`` is stride 32,
and EfficientViT's are ``res4``, ``res5`` and ``res6``. An FPN turns ``res2`` into ``p2``.
"""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import nn

from lightvit_mm.backbones import PyramidBackbone
from lightvit_mm.backbones.families import FAMILIES

TYPES = {family.backbone.__name__: family.backbone for family in FAMILIES.values()}


def add_lightvit_config(cfg: CfgNode) -> None:
    """Add ``cfg.MODEL.LIGHTVIT`` with its defaults, in place.

    The keys are arguments of `PyramidBackbone`. Arguments of a single family can be given in a
    LazyConfig, which builds the backbone directly.
    """
    node = cfg.MODEL.LIGHTVIT = CfgNode()
    node.TYPE = 'EdgeViT'  # one of TYPES
    node.ARCH = 'xxs'
    node.OUT_FEATURES = []  # names of levels if there is no FPN; empty for all
    node.WEIGHTS = ''  # for the backbone alone, in any published layout
    node.FROZEN_STAGES = -1  # used instead of MODEL.BACKBONE.FREEZE_AT
    node.NORM = 'BN'
    node.NORM_EVAL = False
    node.DROP_PATH_RATE = 0.0
    node.WITH_CP = False


class LightViTBackbone(Backbone):
    """A `PyramidBackbone` with Detectron2's interface.

    Args:
        net: the backbone.
        weights: file or address of its pretrained weights; empty for random ones.
    """

    def __init__(self, net: PyramidBackbone, weights: str = '') -> None:
        super().__init__()
        self.net = net
        if weights:
            net.init_cfg = {'type': 'Pretrained', 'checkpoint': weights}
        net.init_weights()
        levels = level_names(type(net))
        self._shapes = {
            levels[index]: ShapeSpec(channels=channels, stride=stride)
            for index, channels, stride in zip(
                net.out_indices, net.out_channels, net.out_strides, strict=True
            )
        }

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the levels of images (N, 3, H, W): (N, C, ceil(H / stride), ceil(W / stride))."""
        return dict(zip(self._shapes, self.net(x), strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every level."""
        return dict(self._shapes)

    @property
    def size_divisibility(self) -> int:
        """For multiples of it, every level is exactly half as large as the one before.

        The backbone takes any size; top-down paths need such multiples.
        """
        return max(self.net.out_strides)

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Read by newer versions of Detectron2 instead of `size_divisibility`."""
        return {'size_divisibility': self.size_divisibility}


def level_names(family: type[PyramidBackbone]) -> tuple[str, ...]:
    """Names of all levels of a family, finest first."""
    return tuple(f'res{_log2(stride)}' for stride in family.level_strides)


@BACKBONE_REGISTRY.register()
def build_lightvit_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> LightViTBackbone:
    """Build the backbone of ``cfg.MODEL.LIGHTVIT`` alone.

    Raises:
        ValueError: the type, arch or a level is unknown, or images do not have 3 channels.
    """
    return _build(cfg, input_shape, cfg.MODEL.LIGHTVIT.OUT_FEATURES)


@BACKBONE_REGISTRY.register()
def build_lightvit_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build the backbone and an FPN on ``cfg.MODEL.FPN.IN_FEATURES`` (empty for all levels).

    One coarser level is subsampled from the last, as in Mask R-CNN.
    """
    bottom_up = _build(cfg, input_shape, cfg.MODEL.FPN.IN_FEATURES)
    top_block = LastLevelMaxPool()
    # Detectron2 hard-codes p5, which is not the last level of every family.
    top_block.in_feature = f'p{_log2(_last_level(bottom_up)[1].stride)}'
    return _fpn(cfg, bottom_up, top_block)


@BACKBONE_REGISTRY.register()
def build_lightvit_retinanet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build the backbone and an FPN with two coarser levels by convolutions, as in RetinaNet.

    They are P6 and P7 after a last level of stride 32, P7 and P8 after stride 64 (EfficientViT).
    """
    bottom_up = _build(cfg, input_shape, cfg.MODEL.FPN.IN_FEATURES)
    name, shape = _last_level(bottom_up)
    top_block = LastLevelP6P7(shape.channels, cfg.MODEL.FPN.OUT_CHANNELS, in_feature=name)
    return _fpn(cfg, bottom_up, top_block)


def _build(cfg: CfgNode, input_shape: ShapeSpec, features: list[str]) -> LightViTBackbone:
    node = cfg.MODEL.LIGHTVIT
    if node.TYPE not in TYPES:
        raise ValueError(
            f'MODEL.LIGHTVIT.TYPE {node.TYPE!r} is none of {", ".join(map(repr, TYPES))}'
        )
    family = TYPES[node.TYPE]
    if input_shape.channels != 3:
        raise ValueError(
            f'{node.TYPE} takes images with 3 channels; these have {input_shape.channels} '
            '(the length of MODEL.PIXEL_MEAN)'
        )
    levels = level_names(family)
    unknown = [name for name in features if name not in levels]
    if unknown:
        raise ValueError(
            f'{node.TYPE} has no {", ".join(unknown)}: its levels are {", ".join(levels)} '
            '(MODEL.FPN.IN_FEATURES, or MODEL.LIGHTVIT.OUT_FEATURES without an FPN)'
        )
    net = family(
        arch=node.ARCH,
        out_indices=sorted(levels.index(name) for name in features) or None,
        frozen_stages=node.FROZEN_STAGES,
        norm_eval=node.NORM_EVAL,
        norm_cfg={'type': node.NORM},
        drop_path_rate=node.DROP_PATH_RATE,
        with_cp=node.WITH_CP,
    )
    return LightViTBackbone(net, node.WEIGHTS)


def _fpn(cfg: CfgNode, bottom_up: LightViTBackbone, top_block: nn.Module) -> FPN:
    return FPN(
        bottom_up=bottom_up,
        in_features=list(bottom_up.output_shape()),
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def _last_level(bottom_up: LightViTBackbone) -> tuple[str, ShapeSpec]:
    return list(bottom_up.output_shape().items())[-1]


def _log2(stride: int) -> int:
    return stride.bit_length() - 1
