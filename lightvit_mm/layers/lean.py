"""Training that keeps what a convolution has made, and nothing of the norm and activation behind.

Between two convolutions stand a BatchNorm and an activation. autograd keeps the input of each of
the three for the backward pass, though norm and activation follow from the first in a fraction of
the time of a convolution. Here they are computed a second time in the backward pass instead, piece
by piece, and the gradients in place. On a CPU that is faster, too: the system clears each page of
new memory before it gives it away, which takes several times as long as the activation.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from lightvit_mm.deploy import slabs
from lightvit_mm.deploy.packed import Activation, Conv2d, Linear, activate

__all__ = ['feed_forward', 'hooked', 'norm_act_conv']

# So much of a map is normalised and activated at once: it stays in the caches, and glibc does not
# give its memory back in between.
PIECE_BYTES = 2**22

aten = torch.ops.aten
ACTIVATE = {'relu': aten.relu, 'gelu': aten.gelu, 'silu': aten.silu}
ACTIVATE_IN_PLACE = {'relu': aten.relu_, 'gelu': aten.gelu_, 'silu': aten.silu_}
Layer = Conv2d | Linear


class _Settings(NamedTuple):
    act: Activation
    eps: float
    batch_statistics: bool
    pointwise: bool
    geometry: tuple[Any, ...]  # as convolution and its gradient take it


def norm_act_conv(
    x: torch.Tensor, norm: nn.Module, act: Activation, conv: nn.Conv2d
) -> torch.Tensor:
    """``conv(act(norm(x)))`` that keeps no more than ``x`` for the backward pass.

    It does so in training on a CPU in single precision, of torch's BatchNorm; else, and where
    somebody has hooks on the modules, it is the plain computation.

    Args:
        x: (N, C, H, W).
        norm: of C channels.
        act: the activation.
        conv: of C to C' channels.

    Returns:
        (N, C', H', W').
    """
    if not (
        _in_plain_training(x)
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.numel() > x.shape[1]  # of one pixel there is no variance, which the norm says
        and type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.running_mean is not None
        and not hooked(norm, conv)
    ):
        return conv(activate(norm(x), act))
    mean, var = _statistics(x.detach(), norm)
    settings = _Settings(
        act,
        norm.eps,
        norm.training,
        conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1,
        (conv.stride, conv.padding, conv.dilation, False, (0, 0), conv.groups),
    )
    return _NormActConv.apply(
        x, norm.weight, norm.bias, mean, var, conv.weight, conv.bias, settings
    )


def feed_forward(x: torch.Tensor, fc1: Layer, act: Activation, fc2: Layer) -> torch.Tensor:
    """``fc2(act(fc1(x)))`` that keeps no result of ``act`` for the backward pass.

    Deployed, wide maps are taken in slabs.

    Args:
        x: (..., C) for linear layers, (N, C, H, W) for 1x1 convolutions.
        fc1, fc2: either; ``fc1`` can also apply an activation itself.
        act: the activation.

    Returns:
        Of the shape of ``x``, but for the number of channels.
    """
    trains = _in_plain_training(x) and torch.get_num_threads() > 1
    if not (trains or slabs.is_wide(x)) or hooked(fc1, fc2):
        return fc2(fc1(x, act))
    if not trains:
        if isinstance(fc1, nn.Conv2d) and isinstance(fc2, nn.Conv2d):
            return slabs.convolve(x, (fc1, fc2), (act, None))
        assert isinstance(fc1, nn.Linear) and isinstance(fc2, nn.Linear)
        return slabs.multiply(x, act, fc1, fc2)
    x = fc1(x)
    if isinstance(fc2, nn.Conv2d):
        return _ActConv.apply(x, fc2.weight, fc2.bias, act)
    pixels = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
    out = _ActConv.apply(pixels, fc2.weight[:, :, None, None], fc2.bias, act)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


def _in_plain_training(x: torch.Tensor) -> bool:
    return (
        torch.is_grad_enabled()
        # First: the compiler cannot follow what comes behind, and would cut its graph there.
        and not torch.compiler.is_compiling()
        and x.is_cpu
        and x.dtype == torch.float32
        and x.numel() > 0
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled('cpu')
        and not torch._C._are_functorch_transforms_active()
    )


def hooked(*modules: nn.Module) -> bool:
    """Whether somebody listens to calls of these modules, so that they have to be called."""
    return any(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        for module in modules
    )


def _statistics(x: torch.Tensor, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance to normalise by; counts the batch as `torch.nn.BatchNorm2d` does."""
    assert norm.running_mean is not None and norm.running_var is not None
    if not norm.training:
        return norm.running_mean, norm.running_var
    factor = norm.momentum or 0.0
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            factor = 1.0 / float(norm.num_batches_tracked)
    return torch.batch_norm_update_stats(x, norm.running_mean, norm.running_var, factor)


class _NormActConv(torch.autograd.Function):
    """Normalise by given statistics, activate, convolve."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        norm_weight: torch.Tensor,
        norm_bias: torch.Tensor,
        mean: torch.Tensor,
        var: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        settings: _Settings,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, norm_weight, norm_bias, mean, var, weight)
        ctx.settings, ctx.has_bias = settings, bias is not None
        scale, shift = _scale_and_shift(norm_weight, norm_bias, mean, var, settings.eps)
        outs = []
        for piece in _split(x, _count(x, settings), settings.pointwise):
            inputs = torch.addcmul(shift, piece, scale)
            if settings.act:
                ACTIVATE_IN_PLACE[settings.act](inputs)
            outs.append(aten.convolution(inputs, weight, bias, *settings.geometry))
        if len(outs) == 1:
            return outs[0]
        if not settings.pointwise:
            return torch.cat(outs)
        rows = torch.cat([out.permute(0, 2, 3, 1) for out in outs], 1)
        return rows.view(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, norm_weight, norm_bias, mean, var, weight = ctx.saved_tensors
        settings = ctx.settings
        scale, shift = _scale_and_shift(norm_weight, norm_bias, mean, var, settings.eps)
        count = _count(x, settings)
        grad_out = grad_out.contiguous(memory_format=torch.channels_last)
        whole: Any = torch.empty_like(x) if count > 1 else None
        slots = [None] if whole is None else _split(whole, count, settings.pointwise)
        grad_weight: Any = None
        grad_bias: Any = None
        for piece, grad, slot in zip(
            _split(x, count, settings.pointwise),
            _split(grad_out, count, settings.pointwise),
            slots,
            strict=True,
        ):
            normed = torch.addcmul(shift, piece, scale)
            grad, *grads = aten.convolution_backward(
                grad,
                _activate(normed, settings.act),
                weight,
                [weight.shape[0]],
                *settings.geometry,
                [True, True, ctx.has_bias],
            )
            if slot is None:
                whole = slot = grad
            _activate_backward(grad, normed, settings.act, slot)
            del normed, grad, slot
            if grad_weight is None:
                grad_weight, grad_bias = grads
            else:
                grad_weight.add_(grads[0])
                grad_bias = grad_bias.add_(grads[1]) if ctx.has_bias else None
        return (
            *_norm_backward_(whole, x, norm_weight, mean, var, settings),
            None,
            None,
            grad_weight,
            grad_bias,
            None,
        )


class _ActConv(torch.autograd.Function):
    """Activate, convolve with a kernel of one pixel."""

    geometry = (1, 1), (0, 0), (1, 1), False, (0, 0), 1

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, act: Activation
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.act, ctx.has_bias = act, bias is not None
        return aten.convolution(_activate(x, act), weight, bias, *_ActConv.geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad, grad_weight, grad_bias = aten.convolution_backward(
            grad,
            _activate(x, ctx.act),
            weight,
            [weight.shape[0]],
            *_ActConv.geometry,
            [True, True, ctx.has_bias],
        )
        _activate_backward(grad, x, ctx.act, grad)
        return grad, grad_weight, grad_bias, None


def _norm_backward_(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    settings: _Settings,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Turn the gradient of BatchNorm's output into that of its input, in place.

    Returns:
        The gradients of input, weight and bias.
    """
    inverse = (var + settings.eps).rsqrt()
    _, grad_weight, grad_bias = aten.native_batch_norm_backward(
        grad,
        x,
        weight,
        mean,
        var,
        mean,
        inverse,
        settings.batch_statistics,
        settings.eps,
        [False, True, True],
    )
    scale = weight * inverse
    if settings.batch_statistics:
        # Mean and variance depend on the input as well.
        count = x.numel() // x.shape[1]
        slope = scale * inverse * grad_weight / -count
        offset = scale * grad_bias / -count - slope * mean
        torch.addcmul(_channels(offset), grad, _channels(scale), out=grad)
        grad.addcmul_(x, _channels(slope))
    else:
        grad.mul_(_channels(scale))
    return grad, grad_weight, grad_bias


def _scale_and_shift(
    weight: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """What BatchNorm multiplies by and adds, (C, 1, 1) each."""
    scale = weight * (var + eps).rsqrt()
    return _channels(scale), _channels(bias - mean * scale)


def _channels(x: torch.Tensor) -> torch.Tensor:
    return x.view(-1, 1, 1)


def _count(x: torch.Tensor, settings: _Settings) -> int:
    """Pieces to take a map in: of rows of pixels for a pointwise convolution, else of images."""
    count = math.ceil(x.nbytes / PIECE_BYTES)
    return count if settings.pointwise else min(count, x.shape[0])


def _split(x: torch.Tensor, count: int, pointwise: bool) -> list[torch.Tensor]:
    """Views of (N, C, H, W): some images each, or one column of pixels (1, C, pixels, 1) each."""
    if count == 1 or not pointwise:
        return list(x.chunk(count))
    pixels = x.permute(0, 2, 3, 1).reshape(1, -1, 1, x.shape[1])
    return [piece.permute(0, 3, 1, 2) for piece in pixels.chunk(count, 1)]


def _activate(x: torch.Tensor, act: Activation) -> torch.Tensor:
    return ACTIVATE[act](x) if act else x


def _activate_backward(
    grad: torch.Tensor, x: torch.Tensor, act: Activation, out: torch.Tensor
) -> None:
    """Write the gradient of an activation's input, which may be ``grad`` itself."""
    if act == 'relu':
        aten.threshold_backward.grad_input(grad, x, 0, grad_input=out)
    elif act == 'gelu':
        aten.gelu_backward.grad_input(grad, x, grad_input=out)
    elif act == 'silu':
        aten.silu_backward.grad_input(grad, x, grad_input=out)
    elif out is not grad:
        out.copy_(grad)
