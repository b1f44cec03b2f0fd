"""The parts of whole models: their time, their data type, and the boxes between them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils._pytree import tree_map
from torch.utils.benchmark import timer

from lightvit_mm.measure.limits import DTYPES

# The rest of a call is post-processing: decoding, NMS, resizing.
PARTS = ('backbone', 'neck', 'head')
REST = 'post-processing'

Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]


def modules_of(model: Any) -> dict[str, list[nn.Module]]:
    """The modules of each of `PARTS`, which together hold the layers of a whole model.

    Of a two-stage detector, the head is the RPN, the extraction of regions and the heads on them.
    """
    neck = getattr(model, 'neck', None)
    roi_head = getattr(model, 'roi_head', None)
    own = ('rpn_head', 'bbox_head', 'mask_head', 'decode_head', 'head')
    heads = [getattr(model, name, None) for name in own]
    of_regions = ('bbox_roi_extractor', 'bbox_head', 'mask_roi_extractor', 'mask_head')
    heads += [getattr(roi_head, name, None) for name in of_regions]
    return {
        'backbone': [model.backbone],
        'neck': [] if neck is None else [neck],
        'head': [each for head in heads if head is not None for each in _flat(head)],
    }


def _flat(module: nn.Module) -> Iterable[nn.Module]:
    return module if isinstance(module, nn.ModuleList) else [module]


@contextmanager
def wrapped(modules: Iterable[nn.Module], wrapper: Wrapper) -> Iterator[None]:
    """Replace the ``forward`` of modules by ``wrapper(forward)``.

    Hooks would not do: mmseg calls ``forward`` of its heads directly, which no hook sees.
    """
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(patch.object(module, 'forward', wrapper(module.forward)))
        yield


class Clocked:
    """A call of a model that also measures the time of its parts.

    Args:
        model: the detector or segmentor.
        call: runs it.
    """

    def __init__(self, model: nn.Module, call: Callable[[], Any]) -> None:
        self.modules = modules_of(model)
        self.call = call
        self.seconds: dict[str, list[float]] = {name: [] for name in (*PARTS, REST)}

    def __call__(self) -> Any:
        """Run the model, and append the seconds of each part to ``seconds``."""
        spent = dict.fromkeys(PARTS, 0.0)

        def clock(part: str, forward: Callable[..., Any]) -> Callable[..., Any]:
            def timed(*args: Any, **kwargs: Any) -> Any:
                begin = timer()
                result = forward(*args, **kwargs)
                spent[part] += timer() - begin
                return result

            return timed

        with ExitStack() as stack:
            for part, modules in self.modules.items():
                stack.enter_context(wrapped(modules, functools.partial(clock, part)))
            begin = timer()
            result = self.call()
            spent[REST] = timer() - begin - sum(spent.values())
        for part, seconds in spent.items():
            self.seconds[part].append(seconds)
        return result


def set_dtype(model: nn.Module, dtype: str, device_type: str) -> None:
    """Let the layers of a model run in a data type, by autocast.

    Decoding, NMS and the extraction of regions stay in fp32.

    Args:
        model: the detector or segmentor, changed in place.
        dtype: a key of `DTYPES`.
        device_type: ``cpu`` or ``cuda``.
    """

    def cast(forward: Callable[..., Any], last: bool) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with torch.autocast(device_type, DTYPES[dtype]):
                result = forward(*args, **kwargs)
            return tree_map(_to_float, result) if last else result

        return run

    def uncast(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            return forward(*tree_map(_to_float, args), **tree_map(_to_float, kwargs))

        return run

    for part, modules in modules_of(model).items():
        for module in modules:
            if hasattr(module, 'roi_layers'):
                module.forward = uncast(module.forward)  # RoIAlign has only fp32 on CPUs
            else:
                module.forward = cast(module.forward, part == 'head')


def _to_float(value: Any) -> Any:
    low = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if low else value


def compile_parts(model: nn.Module) -> None:
    """Let the layers of a model run through ``torch.compile``, in place, for one input size.

    Decoding and NMS depend on values, so they stay as they are.
    """
    for modules in modules_of(model).values():
        for module in modules:
            module.forward = torch.compile(
                module.forward, dynamic=False, options={'freezing': True}
            )


class BoxCount:
    """The boxes that go into the last NMS of a detector.

    Attributes:
        scores: of those boxes, or None if there was no NMS.
    """

    def __init__(self) -> None:
        self.scores: torch.Tensor | None = None

    @property
    def boxes(self) -> int | None:
        """Their number."""
        return None if self.scores is None else len(self.scores)

    @contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """Count in the calls of a model in this context; the last one counts."""
        seen: list[torch.Tensor] = []

        def count(nms: Callable[..., Any]) -> Callable[..., Any]:
            def counted(
                boxes: torch.Tensor, scores: torch.Tensor, *args: Any, **kwargs: Any
            ) -> Any:
                seen.append(scores)
                return nms(boxes, scores, *args, **kwargs)

            return counted

        def forget(forward: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **kwargs: Any) -> Any:
                seen.clear()  # those of the first stage
                return forward(*args, **kwargs)

            return run

        roi_head = getattr(model, 'roi_head', None)
        second = [] if roi_head is None else _flat(roi_head.bbox_head)
        # mmcv's batched_nms calls it once, or once a class.
        module: Any = sys.modules['mmcv.ops.nms']
        with patch.object(module, 'nms', count(module.nms)), wrapped(second, forget):
            yield
        if seen:
            self.scores = torch.cat(seen)
