"""Core ML packages, by Apple's converter from torch.export.

The input of a package is one image. A detector's package ends with Apple's stage for NMS, which is
not part of the network, and has the outputs that Apple's Vision framework reads.

Nothing here has run on an Apple device: Core ML runs nowhere else.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lightvit_mm.export.converters import python_with, run_converter, save_graph
from lightvit_mm.export.low_rank import low_rank
from lightvit_mm.export.subject import Subject
from lightvit_mm.runtimes.detections import choose
from lightvit_mm.runtimes.session import Size

__all__ = ['ConvertedGraph', 'write']


class CentredBoxes(nn.Module):
    """Scores and boxes as Apple's NMS takes them.

    ``forward`` takes an image and returns scores (priors, classes), and boxes (priors, 4): x and y
    of the centre, width and height, as parts of the image's width and height.

    Args:
        network: returns boxes and scores as `lightvit_mm.export.raw.RawDetections`.
        size: height and width of the image.
    """

    scale: torch.Tensor

    def __init__(self, network: nn.Module, size: Size) -> None:
        super().__init__()
        self.network = network
        self.register_buffer('scale', 1 / torch.tensor(size[::-1]).float())

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the network."""
        boxes, scores = self.network(image)
        first, last = boxes[:, :2] * self.scale, boxes[:, 2:] * self.scale
        return scores, torch.cat([(first + last) / 2, last - first], 1)


class ConvertedGraph:
    """What is converted, run by PyTorch in place of the package, see `Session`.

    Args:
        subject: the subject.
    """

    def __init__(self, subject: Subject) -> None:
        self.module = low_rank(subject.whole)
        self.metadata: dict[str, Any] = subject.metadata
        self.outputs = list(subject.names)
        self.size: Size | None = subject.size

    @torch.no_grad()
    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Run the module, see `Session.run`."""
        made = self.module(torch.from_numpy(image))
        arrays = [x.numpy() for x in ([made] if isinstance(made, torch.Tensor) else made)]
        if 'choice' in self.metadata:
            boxes, scores = arrays
            return choose(boxes, scores, self.metadata['choice'])
        return dict(zip(self.outputs, arrays, strict=True))


def write(subject: Subject, part: Path) -> None:
    """Write a subject as an ``.mlpackage`` folder.

    Raises:
        UserError: the converter is not installed or fails.
    """
    python = python_with('coremltools', 'coreml')
    module, outputs = low_rank(subject.whole), list(subject.names)
    if 'choice' in subject.metadata:
        module, outputs = CentredBoxes(module, subject.size), ['confidence', 'coordinates']
    metadata = subject.metadata | {'outputs': outputs, 'size': list(subject.size)}
    with tempfile.TemporaryDirectory() as folder:
        graph, described = Path(folder, 'model.pt2'), Path(folder, 'metadata.json')
        save_graph(module, torch.zeros(1, 3, *subject.size), graph)
        described.write_text(json.dumps(metadata | {'precision': subject.precision}))
        title = 'converting to Core ML'
        made = run_converter(python, 'coreml_converter', [graph, described, part], title)
    print(f'{made}. The package cannot run here: compared is the network that was converted')
