"""What an exported graph has around a network: the config's preprocessing, and a segmentor's end.

The input of a graph is an image as OpenCV reads it, resized to the exported size:
``image[None].transpose(0, 3, 1, 2).astype('float32')`` in numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Preprocessing(nn.Module):
    """Channel order and normalisation of a config's ``data_preprocessor``, then a network.

    Takes images (N, 3, H, W), float32 from 0 to 255, with channels in the order blue, green, red.

    Args:
        network: takes the normalised images.
        settings: the config; ``mean``, ``std``, ``bgr_to_rgb`` and ``rgb_to_bgr`` are used.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.swap = bool(settings.get('bgr_to_rgb') or settings.get('rgb_to_bgr'))
        for name, default in (('mean', 0.0), ('std', 1.0)):
            values = settings.get(name) or [default] * 3
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, image: torch.Tensor) -> Any:
        """Reorder the channels, normalise, and run the network."""
        if self.swap:
            image = image.flip(1)
        return self.network((image - self.mean) / self.std)


class SegmentorLogits(nn.Module):
    """A segmentor as a module from normalised images to logits (N, classes, H, W).

    Args:
        segmentor: the mmseg segmentor.
    """

    def __init__(self, segmentor: nn.Module) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits at the size of the images."""
        segmentor: Any = self.segmentor
        return segmentor.encode_decode(x, [{'img_shape': x.shape[2:]}])
