"""Folding: rewriting a module into fewer operations that give the same outputs in eval mode.

A module that can be folded has a method ``fold()``, which folds it in place. The arithmetic that
several of them share is here.
"""

import copy

import torch
from mmcv.cnn import ConvModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize, prune

__all__ = [
    'add_identity_to_depthwise',
    'fold_affine_into_next_linear',
    'fold_conv_modules',
    'fold_modules',
    'fold_norm_into_next_pointwise',
    'fold_norm_into_transposed_conv',
    'fuse_conv_and_norm',
    'norm_to_depthwise',
]


def fold_modules(root: nn.Module) -> None:
    """Call ``fold()`` on ``root`` and on every module below it that has one, children first.

    Parametrised and pruned weights are replaced by their values first, because folding writes them.
    """
    _bake_weights(root)
    for child in root.children():
        fold_modules(child)
    fold = getattr(root, 'fold', None)
    if callable(fold):
        fold()


def fold_conv_modules(root: nn.Module) -> None:
    """Fold the BatchNorm of every mmcv ``ConvModule`` of a neck or head in place, where it can be.

    A convolution that several norms share, as in RTMDet's head, becomes one for each norm.
    """
    for module in list(root.modules()):
        if not isinstance(module, ConvModule) or not module.with_norm:
            continue
        order, norm = module.order, module.norm
        follows = order.index('norm') == order.index('conv') + 1
        counted = isinstance(norm, _BatchNorm) and norm.running_mean is not None
        if follows and counted and type(module.conv) is nn.Conv2d:
            _bake_weights(module.conv)
            module.conv = fuse_conv_and_norm(module.conv, norm)
            setattr(module, module.norm_name, nn.Identity())


def _bake_weights(module: nn.Module) -> None:
    for name in list(getattr(module, 'parametrizations', ())):
        parametrize.remove_parametrizations(module, name)
    for name, _ in list(module.named_parameters(recurse=False)):
        if hasattr(module, f'{name.removesuffix("_orig")}_mask'):
            prune.remove(module, name.removesuffix('_orig'))


def batch_norm_affine(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift, each of shape (C,), that a BatchNorm applies in eval mode.

    Raises:
        TypeError: ``norm`` is not a BatchNorm with running statistics; its output then depends on
            the statistics of the input, and it cannot be folded.
    """
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.running_var is None:
        raise TypeError(
            f'only a BatchNorm with running statistics can be folded, this is {norm}; '
            "build the backbone with norm_cfg=dict(type='BN') or 'SyncBN'"
        )
    # In double precision, since running_var may be tiny; the result is then rounded only once.
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return scale, shift


@torch.no_grad()
def fold_norm_into_next_pointwise(norm: nn.Module, conv: nn.Conv2d) -> None:
    """Fold a BatchNorm into the 1x1 convolution that follows it, in place.

    This is exact only for 1x1 kernels without padding: padding is zero before the shift of the
    norm, not after it.

    Raises:
        TypeError: ``conv`` is not a dense 1x1 convolution with a bias.
    """
    if conv.kernel_size != (1, 1) or conv.groups != 1 or conv.bias is None:
        raise TypeError(f'expected a dense 1x1 convolution with a bias after the norm, got {conv}')
    scale, shift = batch_norm_affine(norm)
    weight = conv.weight.double()
    conv.bias.copy_(conv.bias.double() + weight.flatten(1) @ shift)
    conv.weight.copy_(weight * scale[:, None, None])


@torch.no_grad()
def fuse_conv_and_norm(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """One convolution with a bias that equals ``norm(conv(x))`` in eval mode."""
    scale, shift = batch_norm_affine(norm)
    if conv.bias is not None:
        shift = shift + scale * conv.bias.double()
    fused = copy.deepcopy(conv)
    fused.weight.copy_(conv.weight.double() * scale[:, None, None, None])
    fused.bias = nn.Parameter(shift.to(conv.weight.device, conv.weight.dtype))
    return fused


@torch.no_grad()
def fold_norm_into_transposed_conv(conv: nn.ConvTranspose2d, norm: nn.Module) -> None:
    """Fold a BatchNorm into the transposed convolution before it, in place.

    Raises:
        TypeError: ``conv`` is not a dense transposed convolution with a bias.
    """
    if conv.groups != 1 or conv.bias is None:
        raise TypeError(f'expected a dense transposed convolution with a bias, got {conv}')
    scale, shift = batch_norm_affine(norm)
    conv.weight.copy_(conv.weight.double() * scale[:, None, None])
    conv.bias.copy_(conv.bias.double() * scale + shift)


@torch.no_grad()
def fold_affine_into_next_linear(norm: nn.LayerNorm, linear: nn.Linear) -> None:
    """Fold the scale and shift of a LayerNorm into the linear layer that follows it, in place.

    The norm loses its parameters, and the linear layer gains a bias if it had none.
    """
    weight = linear.weight.double()
    bias = weight @ norm.bias.double()
    if linear.bias is not None:
        bias = bias + linear.bias.double()
    linear.bias = nn.Parameter(bias.to(weight.device, linear.weight.dtype))
    linear.weight.copy_(weight * norm.weight.double())
    norm.elementwise_affine = False
    norm.weight = norm.bias = None  # type: ignore[assignment]


@torch.no_grad()
def norm_to_depthwise(norm: nn.Module) -> nn.Conv2d:
    """A 1x1 depthwise convolution that equals a BatchNorm without a neighbour to fold into."""
    scale, shift = batch_norm_affine(norm)
    channels = scale.numel()
    conv = nn.Conv2d(channels, channels, 1, groups=channels)
    conv.weight.copy_(scale.view(-1, 1, 1, 1))
    conv.bias.copy_(shift)  # type: ignore[union-attr]
    return conv.to(scale.device, next(norm.buffers()).dtype)


@torch.no_grad()
def add_identity_to_depthwise(conv: nn.Conv2d) -> None:
    """Change a depthwise convolution in place so that it computes ``x + conv(x)``.

    Raises:
        TypeError: the convolution is not depthwise, has an even kernel, or changes the size.
    """
    height, width = conv.kernel_size
    preserves_size = conv.stride == (1, 1) and conv.padding == (height // 2, width // 2)
    if conv.groups != conv.in_channels or conv.in_channels != conv.out_channels:
        raise TypeError(f'expected a depthwise convolution, got {conv}')
    if not preserves_size or height % 2 == 0 or width % 2 == 0:
        raise TypeError(f'expected an odd kernel that keeps the size, got {conv}')
    conv.weight[:, :, height // 2, width // 2] += 1
