"""Detectors of mmdet as modules from normalised images to detections, for an exported graph.

mmdet's own prediction depends on tensor values (how many scores pass a threshold), which a graph
cannot. The modules here do the same arithmetic with a fixed number of candidates: those that mmdet
filters out get a score that NMS ignores.

This module needs mmdet, so `lightvit_mm.export.onnx` imports it only for whole detectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import (
    GFLHead,
    RetinaHead,
    RPNHead,
    RTMDetInsHead,
    RTMDetSepBNHead,
    SSDHead,
)
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.necks import CSPNeXtPAFPN
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder, DistancePointBBoxCoder
from torch import Tensor, nn

from lightvit_mm.errors import UserError
from lightvit_mm.export.onnx_ops import nms, roi_align

__all__ = [
    'SingleStageDetections',
    'TwoStageDetections',
    'check_detector',
    'check_size',
    'detections_of',
    'levels_of',
]

# Below every score, and below every threshold.
DROPPED = -1.0


class SingleStageDetections(nn.Module):
    """The detections of RetinaNet, GFL, SSDLite and RTMDet, equal to those of mmdet's ``predict``.

    ``forward`` takes one image (1, 3, H, W) and returns, best first, boxes (n, 4) as x1, y1, x2, y2
    in pixels of the image, scores (n,) and labels (n,).

    Args:
        detector: the mmdet detector.
    """

    outputs = ('boxes', 'scores', 'labels')

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute boxes, scores and labels."""
        detector: Any = self.detector
        head, cfg = detector.bbox_head, detector.bbox_head.test_cfg
        levels = []
        for scores, deltas, priors in levels_of(head, detector.extract_feat(x)):
            # The best pairs of prior and class belong to the priors with the best single scores.
            _, best = _top(scores.amax(1), cfg.nms_pre)
            classes = scores.shape[1]
            top, pairs = _top(scores[best].flatten(), cfg.nms_pre)
            best = best[pairs // classes]
            levels.append((top, pairs % classes, deltas[best], priors[best]))
        scores, labels, deltas, priors = (torch.cat(values) for values in zip(*levels, strict=True))
        boxes = _decode(head.bbox_coder, priors, deltas, x.shape[2:])
        keep = _suppress(boxes, scores, labels, cfg, cfg.get('score_thr', 0))
        return boxes[keep], scores[keep], labels[keep]


class TwoStageDetections(nn.Module):
    """The detections of Faster and Mask R-CNN, like `SingleStageDetections`.

    A mask head adds ``masks``: (n, 28, 28) probabilities, to be resized to the boxes.

    Args:
        detector: the mmdet detector.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector
        masks = ('masks',) if detector.roi_head.with_mask else ()
        self.outputs = ('boxes', 'scores', 'labels', *masks)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute boxes, scores, labels and, with a mask head, masks."""
        detector: Any = self.detector
        features = detector.extract_feat(x)
        head, size = detector.roi_head, x.shape[2:]
        proposals = _rois(self._proposals(features, size))
        logits, deltas = head.bbox_head(_extract(head.bbox_roi_extractor, features, proposals))
        scores = logits.softmax(-1)[:, :-1]
        count, classes = scores.shape
        priors = proposals[:, 1:]
        if not head.bbox_head.reg_class_agnostic:
            priors = priors[:, None].expand(count, classes, 4).reshape(-1, 4)
        boxes = _decode(head.bbox_head.bbox_coder, priors, deltas.reshape(-1, 4), size)
        boxes = boxes.reshape(count, -1, 4).expand(count, classes, 4).reshape(-1, 4)
        labels = torch.arange(classes, device=x.device).expand(count, classes).reshape(-1)
        scores = scores.reshape(-1)
        cfg = head.test_cfg
        keep = _suppress(boxes, scores, labels, cfg, cfg.score_thr)
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        if not head.with_mask:
            return boxes, scores, labels
        masks = head.mask_head(_extract(head.mask_roi_extractor, features, _rois(boxes)))
        if not head.mask_head.class_agnostic:
            index = labels[:, None, None, None].expand(-1, 1, *masks.shape[2:])
            masks = masks.gather(1, index)
        return boxes, scores, labels, masks[:, 0].sigmoid()

    def _proposals(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        detector: Any = self.detector
        head, cfg = detector.rpn_head, detector.rpn_head.test_cfg
        levels = []
        for level, (scores, deltas, priors) in enumerate(levels_of(head, features)):
            top, best = _top(scores.squeeze(1), cfg.nms_pre)
            levels.append((top, torch.full_like(best, level), deltas[best], priors[best]))
        scores, ids, deltas, priors = (torch.cat(values) for values in zip(*levels, strict=True))
        boxes = _decode(head.bbox_coder, priors, deltas, size)
        return boxes[_suppress(boxes, scores, ids, cfg, DROPPED)]


def detections_of(detector: Any) -> SingleStageDetections | TwoStageDetections:
    """The exportable form of a detector.

    Raises:
        UserError: see `check_detector`.
    """
    check_detector(detector)
    two_stages = isinstance(detector, TwoStageDetector)
    return TwoStageDetections(detector) if two_stages else SingleStageDetections(detector)


def check_detector(detector: Any) -> None:
    """Check that a detector consists of the parts that this module can replace.

    Raises:
        UserError: the detector or one of its parts is not supported.
    """
    two_stages = isinstance(detector, TwoStageDetector)
    if isinstance(getattr(detector, 'bbox_head', None), RTMDetInsHead):
        raise UserError(
            'RTMDet-Ins cannot be exported yet, since it makes a convolution for each object: for '
            'masks, export Mask R-CNN (mask_rcnn_*) to .onnx or .xml (OpenVINO), for boxes RTMDet '
            '(rtmdet_*), or the pyramid alone with --backbone-only'
        )
    for part, kinds in _parts(detector):
        # Subclasses of the standard RoI head predict differently.
        if not isinstance(part, kinds) or (kinds is StandardRoIHead and type(part) is not kinds):
            raise UserError(
                f'{type(part).__name__} cannot be exported yet: whole detectors are RetinaNet, '
                'GFL, SSDLite, RTMDet, and Faster and Mask R-CNN with their standard heads; export '
                'the pyramid with --backbone-only'
            )
    dense = detector.rpn_head if two_stages else detector.bbox_head
    second = [detector.roi_head.test_cfg] if two_stages else []
    for cfg in (dense.test_cfg, *second):
        if (kind := cfg.nms.get('type', 'nms')) != 'nms':
            raise UserError(f'test_cfg: nms of type {kind} cannot be exported, only nms')
    if dense.test_cfg.get('nms_pre', 0) < 1:
        raise UserError('test_cfg.nms_pre must be positive for an export')


def check_size(detector: Any, size: Sequence[int]) -> None:
    """Check that a detector can run at a size; RTMDet's neck needs multiples of its last stride.

    Raises:
        UserError: it cannot.
    """
    if not any(isinstance(part, CSPNeXtPAFPN) for part in detector.modules()):
        return
    multiple = detector.bbox_head.prior_generator.strides[-1][0]
    if any(side % multiple for side in size):
        raise UserError(
            f'--size {size[0]} {size[1]}: the neck of {type(detector).__name__} doubles its maps; '
            f'give multiples of {multiple}'
        )


def _parts(detector: Any) -> list[tuple[Any, Any]]:
    """The parts of a detector that this module replaces, each with its supported classes."""
    if isinstance(detector, SingleStageDetector):
        dense = detector.bbox_head
        coder = getattr(dense, 'bbox_coder', None)
        coders = (DeltaXYWHBBoxCoder, DistancePointBBoxCoder)
        return [(dense, (RetinaHead, SSDHead, GFLHead, RTMDetSepBNHead)), (coder, coders)]
    if not isinstance(detector, TwoStageDetector):
        return [(detector, (SingleStageDetector, TwoStageDetector))]
    dense, roi = detector.rpn_head, detector.roi_head
    parts = [(roi, StandardRoIHead), (dense, RPNHead), (dense.bbox_coder, DeltaXYWHBBoxCoder)]
    parts += [(roi.bbox_roi_extractor, SingleRoIExtractor), (roi.bbox_head, ConvFCBBoxHead)]
    parts += [(roi.bbox_head.bbox_coder, DeltaXYWHBBoxCoder)]
    if roi.with_mask:
        parts += [(roi.mask_roi_extractor, SingleRoIExtractor), (roi.mask_head, FCNMaskHead)]
    return parts


def levels_of(head: Any, features: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Scores (n, classes), deltas (n, 4) and priors, (n, 4) or points (n, 2), of each level."""
    logits, deltas = head(features)
    sizes = [level.shape[2:] for level in logits]
    priors = head.prior_generator.grid_priors(sizes, torch.float32, logits[0].device)
    levels = []
    for i, (values, offsets, boxes) in enumerate(zip(logits, deltas, priors, strict=True)):
        values = values.permute(0, 2, 3, 1).reshape(-1, head.cls_out_channels)
        scores = values.sigmoid() if head.use_sigmoid_cls else values.softmax(-1)[:, :-1]
        offsets = offsets.permute(0, 2, 3, 1)
        if isinstance(head, GFLHead):
            # The mean of each distance's distribution; as a matrix product, which mmdet uses, it
            # would be quantised.
            shares = offsets.reshape(-1, 4, head.reg_max + 1).softmax(-1)
            offsets = (shares * head.integral.project).sum(-1) * head.prior_generator.strides[i][0]
            boxes = head.anchor_center(boxes)
        offsets = offsets.reshape(-1, 4)
        if not isinstance(scores.shape[0], int):
            # The size is open: with this padding, _top always has enough values.
            spare = boxes.new_zeros(head.test_cfg.nms_pre, 4)
            scores = torch.cat(
                [scores, torch.full_like(spare[:, :1], DROPPED).expand(-1, scores.shape[1])]
            )
            offsets = torch.cat([offsets, spare])
            boxes = torch.cat([boxes, spare[:, : boxes.shape[1]]])
        levels.append((scores, offsets, boxes))
    return levels


def _top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest values and their indices; all if there are fewer."""
    if isinstance(values.shape[0], int):
        count = min(count, values.shape[0])
    return values.topk(count)


def _decode(coder: Any, priors: Tensor, deltas: Tensor, size: Sequence[int]) -> Tensor:
    boxes = coder.decode(priors, deltas)
    if not coder.clip_border:
        return boxes
    x, y = boxes[:, 0::2].clamp(0, size[1]), boxes[:, 1::2].clamp(0, size[0])
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)


def _suppress(boxes: Tensor, scores: Tensor, groups: Tensor, cfg: Any, score_thr: float) -> Tensor:
    """Indices of the best ``max_per_img`` boxes that NMS within each group keeps."""
    smallest = cfg.get('min_bbox_size', -1)
    if smallest >= 0:
        sides = boxes[:, 2:] - boxes[:, :2]
        scores = torch.where((sides > smallest).all(1), scores, DROPPED)
    if not cfg.nms.get('class_agnostic', False):
        # Shifted apart, boxes of different groups never overlap. mmcv does the same, so overlaps
        # are rounded equally.
        boxes = boxes + (groups * (boxes.max() + 1))[:, None]
    return nms(boxes, scores, cfg.nms.iou_threshold, score_thr, cfg.max_per_img)


def _rois(boxes: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)


def _extract(extractor: Any, features: Sequence[Tensor], rois: Tensor) -> Tensor:
    """Features (k, C, h, w) of each region, from the level that its size selects."""
    layers = extractor.roi_layers
    targets = extractor.map_roi_levels(rois, len(layers))
    out = features[0].new_zeros(rois.shape[0], features[0].shape[1], *layers[0].output_size)
    for i, layer in enumerate(layers):
        chosen = (targets == i).nonzero().squeeze(1)
        aligned = roi_align(
            features[i],
            rois[chosen],
            *layer.output_size,
            layer.spatial_scale,
            layer.sampling_ratio,
        )
        out = out.index_put((chosen,), aligned)
    return out
