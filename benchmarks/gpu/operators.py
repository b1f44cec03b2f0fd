"""Whether mmcv's operators compute on a device what they compute on a CPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from gpu.record import Check, Finding, Skipped
from lightvit_mm.errors import UserError

LIMIT = 1e-4


def check_roi_align(device: str) -> Iterator[Finding]:
    """Compare RoIAlign, outputs and gradients, with double precision on the CPU.

    The limit is `LIMIT`, or four times the deviation of the CPU's own single precision.
    """
    ops = _operators()
    torch.manual_seed(0)
    maps = torch.randn(2, 16, 50, 84, dtype=torch.float64)
    boxes = torch.cat([torch.arange(100.0).remainder(2)[:, None], _boxes(100)], dim=1).double()
    results = []
    single = torch.float32
    for place, dtype in (('cpu', torch.float64), ('cpu', single), (device, single)):
        x = maps.detach().to(place, dtype, copy=True).requires_grad_()
        out = ops.roi_align(x, boxes.to(place, dtype), (7, 7), 0.125, 0, 'avg', True)
        out.square().mean().backward()
        results.append((out, x.grad))
    for what, expected, own, found in zip(('outputs', 'gradients'), *results, strict=True):
        limit = max(LIMIT, 4 * _deviation(own, expected))
        yield Check(f'RoIAlign {what}', _deviation(found, expected), limit)


def check_nms(device: str) -> Iterator[Finding]:
    """Compare the boxes that NMS keeps, and their order, with the CPU's."""
    ops = _operators()
    if device == 'cpu':
        yield Skipped('NMS', "the CPU's is what others are compared with")
        return
    torch.manual_seed(0)
    boxes, scores = _boxes(3000), torch.rand(3000)
    classes = torch.randint(0, 10, (3000,))
    options = {'type': 'nms', 'iou_threshold': 0.5}
    kept = [
        ops.batched_nms(boxes.to(place), scores.to(place), classes.to(place), options)[1].cpu()
        for place in ('cpu', device)
    ]
    name = f'NMS, {len(kept[0])} of {len(boxes)} boxes kept'
    yield Check(name, float(not torch.equal(*kept)), 0.0)


def check_focal_loss(device: str) -> Iterator[Finding]:
    """Compare the focal loss, which mmcv has for CUDA only, with mmdet's formula on the CPU."""
    ops = _operators()
    if device == 'cpu':
        yield Skipped('focal loss', 'mmcv has none for a CPU')
        return
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    torch.manual_seed(0)
    scores, classes = torch.randn(500, 80), torch.randint(0, 81, (500,))
    exact = scores.double().requires_grad_()
    one_hot = torch.nn.functional.one_hot(classes, 81)[:, :80].double()
    expected = py_sigmoid_focal_loss(exact, one_hot, gamma=2.0, alpha=0.25, reduction='none')
    expected.sum().backward()
    x = scores.to(device).requires_grad_()
    found = ops.sigmoid_focal_loss(x, classes.to(device), 2.0, 0.25, None, 'none')
    found.sum().backward()
    yield Check('focal loss outputs', _deviation(found, expected), LIMIT)
    yield Check('focal loss gradients', _deviation(x.grad, exact.grad), LIMIT)


CHECKS: dict[str, Callable[[str], Iterator[Finding]]] = {
    'RoIAlign': check_roi_align,
    'NMS': check_nms,
    'focal loss': check_focal_loss,
}


def _operators() -> Any:
    try:
        return importlib.import_module('mmcv.ops')
    except ImportError as error:
        raise UserError(f"mmcv's operators are missing ({error}): bash tools/setup.sh") from error


def _boxes(number: int) -> torch.Tensor:
    """Boxes in an image of 400 x 672."""
    corner = torch.rand(number, 2) * torch.tensor([500.0, 300.0])
    return torch.cat([corner, corner + 10 + 90 * torch.rand(number, 2)], dim=1)


def _deviation(found: Any, expected: Any) -> float:
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    return ((found - expected).abs().max() / expected.std()).item()
