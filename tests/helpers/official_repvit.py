"""RepViT read off the key layout of its release: a second opinion for what no golden file covers.

The network is a list of blocks, as in the authors' code; what a block is, its keys tell.
"""

import torch
from torch.nn import functional as F

from helpers import golden_files

Weights = dict[str, torch.Tensor]
VECTORS = ('weight', 'bias', 'running_mean', 'running_var')


def weights(embed_dims, depths, legacy: bool = False) -> Weights:
    """Weights by the rule of the golden files, classifier heads included."""
    shapes: dict[str, list[int]] = {}

    def conv_norm(name: str, channels: int, in_channels: int, kernel_size: int = 1) -> None:
        shapes[f'{name}.c.weight'] = [channels, in_channels, kernel_size, kernel_size]
        norm(f'{name}.bn', channels)

    def norm(name: str, channels: int) -> None:
        shapes.update({f'{name}.{vector}': [channels] for vector in VECTORS})
        shapes[f'{name}.num_batches_tracked'] = []

    def conv(name: str, channels: int, in_channels: int) -> None:
        shapes.update({f'{name}.weight': [channels, in_channels, 1, 1], f'{name}.bias': [channels]})

    def mixer(name: str, channels: int) -> None:
        conv_norm(f'{name}.m.0', 2 * channels, channels)
        conv_norm(f'{name}.m.2', channels, 2 * channels)

    def block(index: int, channels: int, squeeze: bool) -> None:
        unit = f'features.{index}.token_mixer.0'
        conv_norm(f'{unit}.conv', channels, 1, 3)
        if legacy:
            conv_norm(f'{unit}.conv1', channels, 1)
        else:
            conv(f'{unit}.conv1', channels, 1)
            norm(f'{unit}.bn', channels)
        if squeeze:
            hidden = max(8, (channels // 4 + 4) // 8 * 8)
            conv(f'features.{index}.token_mixer.1.fc1', hidden, channels)
            conv(f'features.{index}.token_mixer.1.fc2', channels, hidden)
        mixer(f'features.{index}.channel_mixer', channels)

    conv_norm('features.0.0', embed_dims[0] // 2, 3, 3)
    conv_norm('features.0.2', embed_dims[0], embed_dims[0] // 2, 3)
    index = 1
    for stage, (channels, depth) in enumerate(zip(embed_dims, depths, strict=True)):
        if stage:
            below = embed_dims[stage - 1]
            block(index, below, squeeze=False)
            conv_norm(f'features.{index + 1}.token_mixer.0', below, 1, 3)
            conv_norm(f'features.{index + 1}.token_mixer.2', channels, below)
            mixer(f'features.{index + 1}.channel_mixer', channels)
            index += 2
        for number in range(depth):
            block(index, channels, squeeze=number % 2 == 0)
            index += 1
    for head in ('classifier', 'classifier_dist'):
        norm(f'classifier.{head}.bn', embed_dims[-1])
        shapes[f'classifier.{head}.l.weight'] = [1000, embed_dims[-1]]
        shapes[f'classifier.{head}.l.bias'] = [1000]
    return golden_files.weights({'state_dict': shapes})


def outputs(given: Weights, x: torch.Tensor) -> list[torch.Tensor]:
    """What each entry of the list computes, in double precision."""
    w = {key: value.double() for key, value in given.items()}

    def conv_norm(x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        kernel = w[f'{name}.c.weight']
        groups = x.shape[1] // kernel.shape[1]
        x = F.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2, groups=groups)
        return norm(x, f'{name}.bn')

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias, mean, variance = (w[f'{name}.{vector}'] for vector in VECTORS)
        return F.batch_norm(x, mean, variance, weight, bias, eps=1e-5)

    def token_mixer(x: torch.Tensor, name: str) -> torch.Tensor:
        if f'{name}.2.c.weight' in w:
            return conv_norm(conv_norm(x, f'{name}.0', stride=2), f'{name}.2')
        if f'{name}.0.conv1.c.weight' in w:
            x = conv_norm(x, f'{name}.0.conv') + conv_norm(x, f'{name}.0.conv1') + x
        else:
            kernel, bias = w[f'{name}.0.conv1.weight'], w[f'{name}.0.conv1.bias']
            branch = F.conv2d(x, kernel, bias, groups=len(kernel))
            x = norm(conv_norm(x, f'{name}.0.conv') + branch + x, f'{name}.0.bn')
        if f'{name}.1.fc1.weight' in w:
            fc1, bias1, fc2, bias2 = (
                w[f'{name}.1.{layer}.{part}'] for layer in ('fc1', 'fc2') for part in VECTORS[:2]
            )
            gate = F.conv2d(F.conv2d(x.mean((2, 3), True), fc1, bias1).relu(), fc2, bias2)
            x = x * gate.sigmoid()
        return x

    x = conv_norm(x.double(), 'features.0.0', stride=2)
    maps = [conv_norm(F.gelu(x), 'features.0.2', stride=2)]
    while f'features.{len(maps)}.channel_mixer.m.0.c.weight' in w:
        name = f'features.{len(maps)}'
        x = token_mixer(maps[-1], f'{name}.token_mixer')
        hidden = F.gelu(conv_norm(x, f'{name}.channel_mixer.m.0'))
        maps.append(x + conv_norm(hidden, f'{name}.channel_mixer.m.2'))
    return maps


def logits(given: Weights, x: torch.Tensor) -> torch.Tensor:
    """What the whole network computes in evaluation, the mean of both heads."""
    pooled = outputs(given, x)[-1].mean((2, 3))
    w = {key: value.double() for key, value in given.items()}
    found = []
    for head in ('classifier', 'classifier_dist'):
        weight, bias, mean, variance = (w[f'classifier.{head}.bn.{part}'] for part in VECTORS)
        normed = F.batch_norm(pooled, mean, variance, weight, bias, eps=1e-5)
        found.append(F.linear(normed, *(w[f'classifier.{head}.l.{part}'] for part in VECTORS[:2])))
    return sum(found) / 2


def fused(given: Weights) -> Weights:
    """What the authors' code saves of a folded network: one weight and bias a convolution."""
    w = {key: value.double() for key, value in given.items()}
    result = {key: w[key] for key in w if '.fc1.' in key or '.fc2.' in key}

    def affine(norm: str) -> tuple[torch.Tensor, torch.Tensor]:
        weight, bias, mean, variance = (w[f'{norm}.{vector}'] for vector in VECTORS)
        scale = weight / (variance + 1e-5).sqrt()
        return scale, bias - mean * scale

    def conv_norm(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        scale, shift = affine(f'{name}.bn')
        return w[f'{name}.c.weight'] * scale[:, None, None, None], shift

    for key in w:
        name = key.removesuffix('.c.weight')
        if key.endswith('token_mixer.0.conv1.weight'):
            unit = key.removesuffix('.conv1.weight')
            kernel, bias = conv_norm(f'{unit}.conv')
            kernel = kernel + F.pad(w[f'{unit}.conv1.weight'] + 1, (1, 1, 1, 1))
            scale, shift = affine(f'{unit}.bn')
            result[f'{unit}.weight'] = kernel * scale[:, None, None, None]
            result[f'{unit}.bias'] = (bias + w[f'{unit}.conv1.bias']) * scale + shift
        elif name != key and not name.endswith('token_mixer.0.conv'):
            result[f'{name}.weight'], result[f'{name}.bias'] = conv_norm(name)
    for head in ('classifier', 'classifier_dist'):
        scale, shift = affine(f'classifier.{head}.bn')
        weight, bias = w[f'classifier.{head}.l.weight'], w[f'classifier.{head}.l.bias']
        for key, value in (('weight', weight * scale), ('bias', bias + weight @ shift)):
            result[f'classifier.{key}'] = result.get(f'classifier.{key}', 0) + value / 2
    return {key: value.float() for key, value in result.items()}
